"""How far a video is, live on a terminal, by a plain line now and then elsewhere; and what was made."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from animation.animate import Animation, Report
from animation.results import TABLE
from faceloom.failures import failure_lines
from faceloom.progress import duration

_PLAIN_EVERY_S = 10.0


@contextmanager
def step_display(console: Console) -> Iterator[Report]:
    """A function to call with every step: what is being done, how many steps of how many are done."""
    if not console.is_terminal:
        yield _Lines(console).report
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=console, refresh_per_second=4) as bar:
        tasks: dict[str, Any] = {}

        def show(doing: str, done: int, of: int) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=of)
            bar.update(tasks[doing], completed=done, total=of)

        yield show


class _Lines:
    """A line when something begins and every ten seconds, with the time that is left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._doing = ""
        self._began = self._told = 0.0

    def report(self, doing: str, done: int, of: int) -> None:
        now = time.monotonic()
        if doing != self._doing:
            self._doing, self._began = doing, now
        elif now - self._told < _PLAIN_EVERY_S:
            return
        self._told = now
        spent = now - self._began
        left = f", {duration(spent / done * (of - done))} left" if done and spent > 1 else ""
        self._console.print(f"{doing}: {done} of {of}{left}", highlight=False, soft_wrap=True)


def as_dict(made: Animation, checkpoint: str, digest: str) -> dict[str, Any]:
    """What was made, as ``--json`` prints it."""
    cells = asdict(made) | {"out": str(made.out), "duration_s": made.duration_s}
    cells["side_by_side"] = str(made.side_by_side) if made.side_by_side else None
    return cells | {"checkpoint": checkpoint, "checkpoint_digest": digest}


def as_line(made: Animation) -> str:
    """What was made, for a person."""
    sound = "with the driver's sound" if made.sound else "silent"
    size = f"{made.width}x{made.height} px" + (", put back into the portrait's picture" if made.stitched else "")
    return (
        f"{made.out}: {made.frames} frames, {made.duration_s:.2f} s at {made.fps} a second, {size}, {sound}; "
        f"seed {made.seed}, took {duration(made.took_s)}"
    )


def outcome_lines(rows: Sequence[Mapping[str, Any]], folder: Path) -> Iterator[str]:
    """How many pairs of a batch were animated, and the first of those that failed."""
    failed = [row for row in rows if row["outcome"] == "failed"]
    yield f"{folder}: {len(rows) - len(failed)} animated, {len(failed)} failed; results: {folder / TABLE}"
    yield from failure_lines(failed, "name")
    if failed:
        yield "the same command tries them again"
