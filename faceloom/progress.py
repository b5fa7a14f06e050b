"""How far a run is, and how it is shown: a live bar on a terminal, a plain line now and then elsewhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

_PLAIN_EVERY_S = 10.0


@dataclass
class Progress:
    """What a display needs to know; the engine updates it after every result."""

    clips: int
    decided: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """How many met which outcome: ``kept``, ``rejected: motion``, ``failed: EmptyFileError``."""
    in_work: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    """How many each pool has."""
    losses: Counter[str] = field(default_factory=Counter)
    """Workers that were lost over an item, by pool and cause: ``face: WorkerDied``."""
    recycled: dict[str, int] = field(default_factory=dict)
    """How many workers of each pool were replaced because they had worked long enough."""
    oldest: tuple[str, float] | None = None
    """Name and seconds in a worker of the clip that has been there longest."""
    waiting: dict[str, str] = field(default_factory=dict)
    """Pools that have clips to work on and no worker, and what they lack."""


@contextmanager
def progress_display(console: Console, doing: str, kinds: Sequence[str]) -> Iterator[Callable[[Progress], None]]:
    """A function to call with every :class:`Progress`: a live bar on a terminal, a line every 10 s otherwise.

    ``doing`` is what the bar begins with ("curating"), ``kinds`` are the kinds of outcomes to count ("kept", "rejected").
    """
    if not console.is_terminal:
        last = time.monotonic()

        def line(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= _PLAIN_EVERY_S:
                last = time.monotonic()
                text = f"{doing}: {progress.decided} of {progress.clips} clips; {_details(progress, kinds)}"
                console.print(text, highlight=False, markup=False, emoji=False)

        yield line
        return
    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        yield lambda p: bar.update(task, total=p.clips, completed=p.decided, description=_details(p, kinds))


def _details(progress: Progress, kinds: Sequence[str]) -> str:
    """Outcomes so far, clips in work, and the one that has been in work longest."""
    counts: Counter[str] = Counter()
    for label, count in progress.outcomes.items():
        counts[label.partition(":")[0]] += count
    parts = [f"{counts[kind]} {kind}" for kind in kinds]
    parts += [f"{count} in {pool} work" for pool, count in progress.in_work.items() if count]
    parts += [f"no {pool} worker yet: {lacking}" for pool, lacking in progress.waiting.items()]
    if progress.losses:
        parts.append(f"{progress.losses.total()} workers lost")
    if progress.oldest is not None:
        clip, seconds = progress.oldest
        if seconds > 60:
            parts.append(f"oldest {clip} since {seconds:.0f} s")
    return ", ".join(parts)
