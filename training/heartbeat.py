"""A run whose ranks wait for one that hangs is ended, and the one is named.

Ranks meet in collectives, so that all stand still soon after any does, and neither gloo nor NCCL says whom they wait for.
Each rank therefore writes down what its main loop does, and one that stands still looks who has come least far.
"""

import faulthandler
import json
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import torch.distributed as dist

HUNG_EXIT_CODE = 75
"""Of every rank that ends a run which stands still: ``EX_TEMPFAIL``, a failure that may be gone at the next try."""

_FIRST_STEP_TIMEOUT_S = 3600.0
_SAVED_BETWEEN_S = 5.0
_DONE = "done"


@dataclass(frozen=True)
class Beat:
    """What a rank's main loop last said, and whether its process is alive. Times are seconds since the epoch."""

    rank: int
    host: str
    pid: int
    step: int
    phase: str
    since: float
    """When it said so."""
    allowance_s: float
    """How long it may stay there."""
    written: float
    """When its process wrote this."""

    @property
    def overdue(self) -> bool:
        """Whether it has been there for longer than it may."""
        return self.phase != _DONE and time.time() - self.since > self.allowance_s


class Heartbeat:
    """Watches over this rank's main loop and, when that stands still, over all.

    In its ``with`` block, ``folder/rank-NNNNN.json`` tells every few seconds what :meth:`beat` was last told. When all ranks
    have been in a phase for longer than they may, this process says which has come least far and exits with
    :data:`HUNG_EXIT_CODE`; the launcher ends the others.

    A phase may take ``timeout_s``, or what :meth:`beat` allows it. In the first step, and in the first after :meth:`begin`,
    which compile, it may take ``first_step_timeout_s``. All ranks see ``folder``, and their clocks agree to a few seconds.
    Constructing it is a collective call.
    """

    def __init__(
        self, folder: Path, rank: int, timeout_s: float, first_step_timeout_s: float = _FIRST_STEP_TIMEOUT_S
    ) -> None:
        self._folder = folder
        self._rank = rank
        self._timeout_s = timeout_s
        self._first_s = max(first_step_timeout_s, timeout_s)
        self._first_step: int | None = None
        self._world = dist.get_world_size()
        self._every_s = min(_SAVED_BETWEEN_S, timeout_s / 4)
        self._told = (0, "starting", time.time(), self._first_s)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            for stale in folder.glob("rank-*.json"):
                stale.unlink()
        dist.barrier()

    def begin(self, step: int, phase: str) -> None:
        """As :meth:`beat`, at the start of a stage: until a later step, all may take as long as the first."""
        self._first_step = step
        self.beat(step, phase)

    def beat(self, step: int, phase: str, allowance_s: float | None = None) -> None:
        """Say that the main loop has come to ``phase`` of ``step``, where it may stay ``allowance_s``. Costs nothing.

        Call it whenever something is done, a micro-batch or a file of many: it is progress that keeps a run alive.
        """
        if self._first_step is None:
            self._first_step = step
        within = allowance_s or self._timeout_s
        self._told = (step, phase, time.time(), max(within, self._first_s) if step == self._first_step else within)

    def __enter__(self) -> "Heartbeat":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()
        # A rank that failed is the one that the others wait for.
        phase = _DONE if kind is None else f"{self._told[1]} (ended by {kind.__name__})"
        self._told = (self._told[0], phase, *self._told[2:])
        self._write()

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self._write()
            if self._beat().overdue:
                running = [b for b in read_beats(self._folder) if b.phase != _DONE and b.rank < self._world]
                # One that is within its time may be what the others wait for, wherever it is in the step.
                if running and all(beat.overdue for beat in running):
                    self._end(min(running, key=lambda b: (not self._is_silent(b), b.step, b.since)), running)

    def _beat(self) -> Beat:
        step, phase, since, allowance_s = self._told
        return Beat(self._rank, socket.gethostname(), os.getpid(), step, phase, since, allowance_s, time.time())

    def _write(self) -> None:
        path = self._folder / f"rank-{self._rank:05d}.json"
        temporary = path.with_suffix(".tmp")
        # Not flushed to the disk: a file this small is worth nothing after a crash, and a disk busy with a checkpoint
        # would keep the watch waiting.
        try:
            temporary.write_text(json.dumps(asdict(self._beat())))
            temporary.replace(path)
        except OSError:
            # A full disk ends no run; the file is old then, which is what it says.
            pass

    def _is_silent(self, beat: Beat) -> bool:
        return time.time() - beat.written > 3 * self._every_s

    def _end(self, behind: Beat, running: list[Beat]) -> NoReturn:
        now = time.time()
        if behind.rank == self._rank:
            state = "this is where it stands:"
        elif self._is_silent(behind):
            state = f"its process has been silent for {now - behind.written:.0f} s: it is stopped or dead, or its machine is"
        else:
            state = "its process is alive, and its own output says where it stands"
        sys.stderr.write(
            f"rank {self._rank}: the run stands still and waits for rank {behind.rank} (host {behind.host}, pid "
            f"{behind.pid}), for {now - behind.since:.0f} s in step {behind.step}, {behind.phase}; {state}\n"
            f"where the ranks are: {_whereabouts(running)}\n"
        )
        if behind.rank == self._rank:
            faulthandler.dump_traceback(all_threads=True)
        sys.stderr.flush()
        # The main thread is inside a collective or a read, out of which no exception calls it.
        os._exit(HUNG_EXIT_CODE)


def read_beats(folder: Path) -> list[Beat]:
    """What the ranks last wrote in ``folder``, by rank; those that have not written are left out."""
    beats = []
    for path in sorted(folder.glob("rank-*.json")):
        try:
            beats.append(Beat(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):
            continue
    return beats


def _whereabouts(running: list[Beat]) -> str:
    """How many ranks are where, those least far first; the first few of each by number."""
    places: dict[tuple[int, str], list[int]] = {}
    for beat in sorted(running, key=lambda b: (b.step, b.since)):
        places.setdefault((beat.step, beat.phase), []).append(beat.rank)
    return "; ".join(
        f"step {step}, {phase}: {len(ranks)} ({', '.join(map(str, sorted(ranks)[:8]))}{', …' if len(ranks) > 8 else ''})"
        for (step, phase), ranks in places.items()
    )
