"""What ``faceloom status`` tells of a run from the files of its dataset."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from curation.ledger import Decision, write_fragment
from curation.outcome import Kept, Rejected
from curation.sources import Clip
from curation.status import status_of
from faceloom.lease import Lease
from faceloom.lease_file import Holder, lease_path
from faceloom.progress import Oldest, Progress
from tests.conftest import Run
from tests.curation.datasets import record_of


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two of six clips are committed, in one of three blocks."""
    clips = [Clip("set", name, f"/{name}") for name in ("a.mp4", "b.mp4")]
    write_fragment(tmp_path, 0, [Decision(clips[0], Kept()), Decision(clips[1], Rejected("motion", 0.2, 1.0))], "run")
    record_of(6, blocks=3, complete=False).save(tmp_path)
    return tmp_path


def at(**changes: Any) -> dict[str, Any]:
    """What a driver that has decided four clips tells."""
    progress = Progress(clips=6, decided=4, blocks_open=2, oldest=Oldest("c.mp4", "3f2a", "face", 75.0))
    for now in range(11):
        progress.pace.note(2 + now // 5, float(now))
    for name, value in changes.items():
        setattr(progress, name, value)
    return json.loads(json.dumps(progress.state()))


def leave(dataset: Path, holder: Holder) -> None:
    new = dataset / "new"
    new.write_text(json.dumps(asdict(holder)))
    new.replace(lease_path(dataset))


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_without_a_driver_it_tells_what_is_committed_and_how_to_go_on(dataset: Path) -> None:
    first, blocks = status_of(dataset).lines()
    assert first.endswith(
        "2 of 6 clips decided, 1 samples; unfinished; the same `faceloom curate` command goes on with it"
    )
    assert blocks == "blocks: 1 of 3 committed"


def test_a_driver_at_work_is_told_with_its_pace_its_oldest_clip_and_its_blocks(dataset: Path) -> None:
    with Lease(lease_path(dataset), "curate", renew_s=0.05) as lease:
        lease.tell(at())
        wait_for(lambda: "c.mp4" in lease_path(dataset).read_text())
        status = status_of(dataset)
    lines = "\n".join(status.lines())
    assert "a driver is at work on it" in lines
    assert "at work: faceloom curate on" in lines
    assert "last seen 0 s ago" in lines
    assert "4 of 6 clips, with those of open blocks" in lines
    assert "12 clips/min, 10 s left" in lines
    assert "longest: c.mp4, 1 min 15 s in face" in lines
    assert "0 blocks committed by this run, 2 open" in lines
    told = status.as_json()
    assert told["blocks"] == {"all": 3, "committed": 1}
    (driver,) = told["drivers"]
    assert (driver["at_work"], driver["state"]["oldest"]["clip_id"]) == (True, "3f2a")


def test_a_killed_driver_is_gone_at_once_on_its_machine_and_was_last_seen_at(dataset: Path) -> None:
    leave(dataset, replace(Holder.this_process("curate"), started=1, renewed_at=time.time() - 185, state=at()))
    status = status_of(dataset)
    lines = status.lines()
    assert "unfinished" in lines[0]
    assert lines[2].startswith("its driver is gone: faceloom curate on ")
    assert lines[2].endswith("last seen 3 min 5 s ago; the same command goes on")
    assert "left" not in "\n".join(lines), "nothing is under way any more"
    assert status.as_json()["drivers"][0]["at_work"] is False


def test_a_driver_on_another_machine_is_gone_when_it_is_not_heard_of(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceloom.lease_file.RENEW_S", 0.1)
    leave(dataset, replace(Holder.this_process("curate"), machine="another", renewed_at=time.time() - 9))
    assert status_of(dataset).as_json()["drivers"][0]["at_work"] is False


def test_a_driver_on_a_machine_whose_clock_is_an_hour_off_is_at_work_when_it_is_heard_of(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faceloom.lease_file.RENEW_S", 1.0)
    other = replace(Holder.this_process("curate"), machine="another", renewed_at=time.time() - 3600)
    leave(dataset, other)
    renewal = threading.Timer(0.3, leave, (dataset, replace(other, renewals=1)))
    renewal.start()
    try:
        assert status_of(dataset).as_json()["drivers"][0]["at_work"] is True
    finally:
        renewal.join()


@pytest.mark.parametrize("state", [{"decided": 4}, at() | {"oldest": "c.mp4"}, {}])
def test_of_a_driver_of_another_version_it_tells_only_that_it_is_there(dataset: Path, state: dict[str, Any]) -> None:
    leave(dataset, replace(Holder.this_process("curate"), state=state))
    lines = status_of(dataset).lines()
    assert lines[2].startswith("at work: faceloom curate on ")
    assert len(lines) == 3


@pytest.mark.parametrize("text", ['{"pid": "../../etc"}', "[]", "null", "\0", json.dumps({"pid": 10**40})])
def test_a_lease_that_is_none_is_passed_over(dataset: Path, text: str) -> None:
    lease_path(dataset).write_text(text)
    assert status_of(dataset).drivers == ()


def test_the_command_shows_it_and_the_outcomes(dataset: Path, run: Run) -> None:
    leave(dataset, replace(Holder.this_process("curate"), started=1, host="[bold]node", state=at()))
    _, shown, _ = run("status", dataset)
    assert "its driver is gone: faceloom curate on [bold]node" in shown
    assert "motion" in shown
