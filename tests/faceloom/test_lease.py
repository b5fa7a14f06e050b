"""Who may work on an output: drivers that live, died, stand still, or race."""

import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from faceloom.errors import UserError
from faceloom.lease import Lease
from faceloom.lease_file import Holder, lease_path, read_holder, write
from faceloom.location import is_remote, location

SOON = {"renew_s": 0.05, "expiry_s": 0.6}


def elsewhere(**changes: object) -> Holder:
    """A driver on another machine."""
    return replace(Holder.this_process("curate"), machine="another", host="node-7", pid=4711, **changes)


def leave(path: Path, holder: Holder) -> None:
    put(path, json.dumps(asdict(holder)))


def put(path: Path, text: str) -> None:
    if is_remote(path):
        path.fs.pipe_file(path.path, text.encode())
    else:
        path.write_text(text)


def wait_for(happens: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return lease_path(tmp_path)


@pytest.fixture(params=["disk", "S3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Of a dataset on a disk, and of one on S3."""
    if request.param == "disk":
        return lease_path(tmp_path)
    request.getfixturevalue("s3")
    return lease_path(location(f"s3://footage{tmp_path}"))


def test_a_held_lease_is_refused_with_host_process_and_remedy_and_then_released(anywhere: Path) -> None:
    with Lease(anywhere, "curate", **SOON):
        second = Lease(anywhere, "curate")
        with pytest.raises(UserError, match=rf"curate on .*process {os.getpid()}, since .*kill {os.getpid()}"):
            second.__enter__()
    assert read_holder(anywhere) is None
    with Lease(anywhere, "curate", **SOON):
        pass


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_it_is_released_however_the_run_ends(path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), Lease(path, "curate", **SOON):
        raise error
    assert list(path.parent.iterdir()) == []


def test_a_layer_has_a_lease_of_its_own(tmp_path: Path) -> None:
    with Lease(lease_path(tmp_path), "curate"), Lease(lease_path(tmp_path, "latents"), "encode"):
        assert sorted(file.name for file in tmp_path.iterdir()) == ["driver.json", "driver.latents.json"]


def test_what_the_run_is_at_is_in_the_file_soon(anywhere: Path) -> None:
    with Lease(anywhere, "curate", **SOON) as lease:
        lease.tell({"decided": 7})
        wait_for(lambda: (holder := read_holder(anywhere)) is not None and holder.state == {"decided": 7})


def test_a_driver_killed_on_this_machine_holds_nothing_any_more(path: Path) -> None:
    """Also as a zombie, which nobody has taken note of, and with an expiry that would be waited for in vain."""
    hold = (
        "import time; from pathlib import Path; from faceloom.lease import Lease; "
        f"Lease(Path({str(path)!r}), 'curate').__enter__(); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", hold]) as driver:
        wait_for(lambda: read_holder(path) is not None)
        driver.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, driver.pid, os.WEXITED | os.WNOWAIT)
        with Lease(path, "curate", renew_s=1000, expiry_s=100_000):
            holder = read_holder(path)
            assert holder is not None
            assert holder.pid == os.getpid()


def test_a_process_number_that_was_given_anew_is_not_the_holder(path: Path) -> None:
    leave(path, replace(Holder.this_process("curate"), started=1))
    with Lease(path, "curate", renew_s=1000, expiry_s=100_000):
        pass


def test_a_process_of_another_user_may_only_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1000)
    mine = replace(Holder.this_process("curate"), started=1)
    assert (mine.alive, replace(mine, user=1001).alive) == (False, None)


def test_a_driver_elsewhere_that_is_heard_of_is_left_alone(path: Path) -> None:
    leave(path, elsewhere())
    stop = threading.Event()

    def renew() -> None:
        number = 0
        while not stop.wait(0.2):
            number += 1
            other = path.with_name("other")
            leave(other, elsewhere(renewals=number))
            other.replace(path)

    other = threading.Thread(target=renew)
    other.start()
    try:
        with pytest.raises(UserError, match="node-7, process 4711"), Lease(path, "curate", renew_s=0.1, expiry_s=1000):
            pass
    finally:
        stop.set()
        other.join()


@pytest.mark.parametrize("left", [json.dumps(asdict(elsewhere())), "", "{half a fi"])
def test_a_driver_elsewhere_that_is_not_heard_of_is_taken_over_after_the_expiry_by_our_clock(
    anywhere: Path, left: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(anywhere, left)
    begun = time.monotonic()
    with Lease(anywhere, "curate", **SOON) as lease:
        assert time.monotonic() - begun >= SOON["expiry_s"]
        lease.check()
    assert "waiting up to" in caplog.text
    assert "taking over" in caplog.text


def test_a_driver_that_finds_another_in_its_place_stops_and_leaves_the_file_to_it(anywhere: Path) -> None:
    with Lease(anywhere, "curate", **SOON) as lease:
        lease.check()
        leave(anywhere, elsewhere())
        wait_for(lambda: lease._taken_over_by is not None)
        with pytest.raises(UserError, match="taken over by faceloom curate on node-7"):
            lease.check()
    holder = read_holder(anywhere)
    assert holder is not None
    assert holder.host == "node-7"


def test_a_driver_that_stood_still_looks_before_it_commits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its renewals are an hour away: as after a stop, it is the check that finds out."""
    with Lease(path, "curate", renew_s=3600, expiry_s=7200) as lease:
        leave(path, elsewhere())
        lease.check()  # it renewed a moment ago: nobody can have thought it dead
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        monkeypatch.setattr("faceloom.lease.clock", lambda: now + 3601)
        with pytest.raises(UserError, match="node-7"):
            lease.check()


def test_a_driver_whose_storage_is_away_for_long_does_not_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Lease(path, "curate", renew_s=0.05, expiry_s=0.6) as lease:

        def away(*_: object) -> None:
            raise OSError("stale file handle")

        monkeypatch.setattr("faceloom.lease.write", away)
        time.sleep(0.4)
        with pytest.raises(UserError, match=r"cannot renew .*stale file handle"):
            lease.check()


def _race(path: str, begin: float, won: "multiprocessing.Queue[bool]") -> None:
    time.sleep(max(0.0, begin - time.time()))
    try:
        with Lease(Path(path), "curate", renew_s=0.2, expiry_s=1.0) as lease:
            time.sleep(1.5)
            lease.check()
            won.put(True)
    except UserError:
        won.put(False)


@pytest.mark.parametrize("lockable", [True, False])
def test_of_drivers_that_race_one_wins(path: Path, lockable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a file to take over; where folders can be locked, and where they cannot."""
    leave(path, elsewhere())
    if not lockable:
        monkeypatch.setattr("faceloom.lease_file._locked", lambda _: False)
    fork = multiprocessing.get_context("fork")
    won: multiprocessing.Queue[bool] = fork.Queue()
    begin = time.time() + 0.3
    drivers = [fork.Process(target=_race, args=(str(path), begin, won)) for _ in range(5)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert sorted(won.get() for _ in drivers) == [False] * 4 + [True]


def test_where_nothing_can_be_locked_a_taker_gives_way_to_one_that_wrote_after_it(
    anywhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_be_overwritten(path: Path, holder: Holder) -> None:
        write(path, holder)
        leave(path, replace(Holder.this_process("curate"), host="the-other"))

    monkeypatch.setattr("faceloom.lease_file._locked", lambda _: False)
    monkeypatch.setattr("faceloom.lease.write", write_and_be_overwritten)
    leave(anywhere, elsewhere())
    with pytest.raises(UserError, match="the-other"):
        Lease(anywhere, "curate", **SOON).__enter__()


def test_a_taker_waits_while_another_has_the_folder_locked(path: Path) -> None:
    taker = threading.Thread(target=lambda: Lease(path, "curate", renew_s=1000).__enter__())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        taker.start()
        time.sleep(0.3)
        assert not path.exists()
    finally:
        os.close(folder)
        taker.join()
    assert path.exists()
