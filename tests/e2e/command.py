"""The true command as a subprocess: run to its end, or started to be killed at a chosen moment."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import psutil

import faceloom as package

# RAFT at its cheapest, and few processes to start: for tests in which neither is the point.
CHEAP_SETTINGS = (
    *("flow.model=raft-small", "flow.scale=0.25", "flow.iterations=2"),
    *("run.face.workers=1", "run.flow.workers=1", "run.block_clips=2"),
)
_SHORT_DEMO = (
    *("curate.flow.model=raft-small", "curate.flow.iterations=2"),
    *("train.ema.decay=0.9", "train.stages.base.steps=200", "train.stages.motion.steps=30"),
    *("train.stages.identity.steps=20", "train.stages.joint.steps=10"),
)
_ROOT = Path(package.__file__).parents[1]
_TIMEOUT_S = 1800.0


def faceloom(
    *arguments: str | Path, environment: dict[str, str] | None = None, exit_code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``faceloom`` to its end; its output must come with ``exit_code`` unless that is None."""
    done = subprocess.run(
        _line(arguments), env=_environment(environment), cwd=_ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S
    )
    if exit_code is not None:
        told = f"{' '.join(map(str, arguments))}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == exit_code, told
    return done


def curate(manifest: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """``faceloom curate`` with the cheap flow, in blocks of two clips."""
    return faceloom(*curate_arguments(manifest, out), *more)


def short_demo(out: Path) -> tuple[str | Path, ...]:
    """The arguments of a demo with a cheap flow, whose model is trained for a minute: too short a time for all that the demo
    expects of it.
    """
    settings = [argument for setting in _SHORT_DEMO for argument in ("--set", setting)]
    return ("demo", "--out", out, *settings)


def curate_arguments(manifest: Path, out: Path) -> tuple[str | Path, ...]:
    """The arguments of :func:`curate`, the same for every run that is to be compared."""
    settings = [argument for setting in CHEAP_SETTINGS for argument in ("--set", setting)]
    return ("curate", "--config", "demo", *settings, "--manifest", manifest, "--out", out)


@contextmanager
def started(*arguments: str | Path) -> Iterator[psutil.Process]:
    """The command at work. Whatever it started is dead when the block is left, and nothing else is."""
    with subprocess.Popen(
        _line(arguments),
        env=_environment(None),
        cwd=_ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as driver:
        process = psutil.Process(driver.pid)
        try:
            yield process
        finally:
            kill_with_descendants(process)


def kill_with_descendants(driver: psutil.Process) -> None:
    """``kill -9`` the driver and everything below it, as close to at once as can be, like a power cut."""
    try:
        processes = [driver, *driver.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    kill_all(processes)


def kill_all(processes: list[psutil.Process]) -> None:
    """``kill -9`` those that still live, and see them dead."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    end = time.monotonic() + 30
    while any(lives(process) for process in processes):
        assert time.monotonic() < end, "a killed process lives on"
        time.sleep(0.02)


def wait_until(happens: Callable[[], bool], driver: psutil.Process, timeout_s: float = 180.0) -> None:
    """Watch closely for a moment that may last for a few milliseconds only."""
    end = time.monotonic() + timeout_s
    while not happens():
        assert lives(driver), "the command ended before the moment came"
        assert time.monotonic() < end, "the moment never came"
        time.sleep(0.0005)


def runs_a_method(driver: psutil.Process, title: str) -> bool:
    """Whether one of the driver's workers is at it now: Ray gives it as the title of the process."""
    for process in driver.children(recursive=True):
        try:
            if any(title in part for part in process.cmdline()):
                return True
        except psutil.NoSuchProcess:
            continue
    return False


def tree(dataset: Path) -> dict[str, str]:
    """sha256 of every file of a dataset by its path, but for what runs may differ in: what they cost."""
    return {
        path.relative_to(dataset).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and path.relative_to(dataset).parts[0] != "telemetry"
    }


def lives(process: psutil.Process) -> bool:
    """A zombie has done with the world, even if nobody has taken note of it yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _line(arguments: tuple[str | Path, ...]) -> list[str]:
    return [sys.executable, "-m", "faceloom", *map(str, arguments)]


def _environment(more: dict[str, str] | None) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**inherited, "COLUMNS": "200", "NO_COLOR": "1", **(more or {})}
