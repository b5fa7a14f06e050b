"""What a driver does beside its work."""

import json
import signal
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from faceloom.errors import UserError
from faceloom.lease_file import Holder, lease_path, read_holder
from faceloom.logs import log_file
from faceloom.progress import Progress
from faceloom.watch import Watch


def test_a_report_reaches_the_display_and_the_leases_file(tmp_path: Path) -> None:
    shown: list[Progress] = []
    progress = Progress(clips=9, decided=4)
    watch = Watch("curate", lease_path(tmp_path), tmp_path, shown.append)
    watch._lease._renew_s = 0.05
    with watch:
        watch.report(progress)
        while not ((holder := read_holder(lease_path(tmp_path))) is not None and holder.state):
            pass
    assert shown == [progress]
    assert holder.state["decided"] == 4


def test_a_run_that_was_taken_over_is_ended_by_its_next_report(tmp_path: Path) -> None:
    with Watch("curate", lease_path(tmp_path), tmp_path, lambda _: None) as watch:
        watch._lease._taken_over_by = Holder.this_process("curate")
        with pytest.raises(UserError, match="taken over"):
            watch.report(Progress(clips=1))


def test_the_log_says_when_a_run_begins_and_how_it_ends(tmp_path: Path) -> None:
    log, lease = tmp_path / "log", lease_path(tmp_path)
    with log_file(log), pytest.raises(UserError), Watch("curate", lease, tmp_path, lambda _: None):
        raise UserError("no room")
    told = [json.loads(line)["message"] for line in log.read_text().splitlines()]
    assert told == [f"curate of {tmp_path} begins", f"curate of {tmp_path} ends (UserError: no room)"]


def test_a_run_that_another_keeps_from_its_output_begins_nothing(tmp_path: Path) -> None:
    log, lease = tmp_path / "log", lease_path(tmp_path)
    lease.write_text(json.dumps(asdict(replace(Holder.this_process("curate"), host="here"))))
    with log_file(log), pytest.raises(UserError), Watch("curate", lease, tmp_path, lambda _: None):
        pass
    assert log.read_text() == ""


def test_a_signal_to_end_leaves_no_lease_behind(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, Watch("curate", lease_path(tmp_path), tmp_path, lambda _: None):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    assert ended.value.code == 143
    assert list(tmp_path.iterdir()) == []
