"""How far a run is, and how it is told: live on a terminal, a plain line now and then elsewhere, a few numbers in a file."""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text
from typing_extensions import TypedDict  # pydantic takes typing's only from Python 3.12 on

_PLAIN_EVERY_S = 10.0
_RECENT_S = 300.0
_NOTED_EVERY_S = 1.0
_MOST_OFTEN = 3


@dataclass(frozen=True)
class Oldest:
    """The clip that has been in a worker longest."""

    name: str
    clip_id: str
    stage: str
    seconds: float


class Pace:
    """How fast clips are decided, in clips a second; what was decided before the first :meth:`note` does not count."""

    def __init__(self) -> None:
        self._first: tuple[float, int] | None = None
        self._last = (0.0, 0)
        self._recent: deque[tuple[float, int]] = deque()

    def note(self, decided: int, now: float) -> None:
        """``decided`` clips are decided ``now``, a time in seconds of any clock."""
        if self._first is None:
            self._first = now, decided
        if not self._recent or now - self._recent[-1][0] >= _NOTED_EVERY_S:
            self._recent.append((now, decided))
        while now - self._recent[0][0] > _RECENT_S:
            self._recent.popleft()
        self._last = now, decided

    @property
    def overall(self) -> float | None:
        """Since the run began; None as long as no time has passed."""
        return None if self._first is None else self._since(self._first)

    @property
    def recent(self) -> float | None:
        """Over the last five minutes."""
        return self._since(self._recent[0]) if self._recent else None

    def _since(self, point: tuple[float, int]) -> float | None:
        seconds, clips = self._last[0] - point[0], self._last[1] - point[1]
        return max(0.0, clips / seconds) if seconds > 0 else None


@dataclass
class Progress:
    """What there is to know of a run that is under way; the engine keeps it up."""

    clips: int
    decided: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """How many met which outcome: ``kept``, ``rejected: motion``, ``failed: EmptyFileError``."""
    in_work: dict[str, int] = field(default_factory=dict)
    workers: dict[str, int] = field(default_factory=dict)
    """How many each pool has."""
    losses: Counter[str] = field(default_factory=Counter)
    """Workers that were lost over an item, by pool and cause: ``face: WorkerDied``."""
    retries: Counter[str] = field(default_factory=Counter)
    """Items that were given to another worker of a pool, or sent back to the first, because one or its payload was lost."""
    recycled: dict[str, int] = field(default_factory=dict)
    """How many workers of each pool were replaced because they had worked long enough."""
    oldest: Oldest | None = None
    waiting: dict[str, str] = field(default_factory=dict)
    """Pools that have clips to work on and no worker, and what they lack."""
    blocks_open: int = 0
    """Begun and not committed."""
    blocks_committed: int = 0
    """By this run."""
    pace: Pace = field(default_factory=Pace)

    def state(self) -> "State":
        """The same as JSON holds it."""
        recent, overall, oldest = self.pace.recent, self.pace.overall, self.oldest
        return {
            "clips": self.clips,
            "decided": self.decided,
            "clips_per_s": recent,
            "clips_per_s_overall": overall,
            "left_s": (self.clips - self.decided) / recent if recent else None,
            "outcomes": {label: count for label, count in self.outcomes.most_common() if count},
            "in_work": self.in_work,
            "workers": self.workers,
            "oldest": {
                "name": oldest.name,
                "clip_id": oldest.clip_id,
                "stage": oldest.stage,
                "seconds": oldest.seconds,
            }
            if oldest
            else None,
            "losses": dict(self.losses),
            "retries": dict(self.retries),
            "recycled": self.recycled,
            "waiting": self.waiting,
            "blocks_open": self.blocks_open,
            "blocks_committed": self.blocks_committed,
        }


class OldestState(TypedDict):
    """An :class:`Oldest`."""

    name: str
    clip_id: str
    stage: str
    seconds: float


class State(TypedDict):
    """A :class:`Progress` as JSON holds it, with rates in clips a second, and the seconds that are left at the recent one."""

    clips: int
    decided: int
    clips_per_s: float | None
    clips_per_s_overall: float | None
    left_s: float | None
    outcomes: dict[str, int]
    in_work: dict[str, int]
    workers: dict[str, int]
    oldest: OldestState | None
    losses: dict[str, int]
    retries: dict[str, int]
    recycled: dict[str, int]
    waiting: dict[str, str]
    blocks_open: int
    blocks_committed: int


def read_state(value: object) -> State | None:
    """What JSON gave, if it is a state that this version knows."""
    try:
        return TypeAdapter(State).validate_python(value)
    except ValidationError:
        return None


def describe(state: State) -> list[str]:
    """A :meth:`Progress.state` in a few lines: pace, outcomes, work, and what is amiss, if anything is."""
    lines = [_pace(state), _outcomes(state["outcomes"]), _work(state), _trouble(state)]
    lines += [f"no {pool} worker yet: {lacking}" for pool, lacking in state["waiting"].items()]
    return [line for line in lines if line]


@contextmanager
def progress_display(console: Console, doing: str) -> Iterator[Callable[[Progress], None]]:
    """A function to call with every :class:`Progress`: a live display on a terminal, a line every 10 s otherwise.

    ``doing`` is what it begins with ("curating").
    """
    if not console.is_terminal:
        last = time.monotonic()

        def line(progress: Progress) -> None:
            nonlocal last
            if time.monotonic() - last >= _PLAIN_EVERY_S:
                last = time.monotonic()
                told = "; ".join(describe(progress.state()))
                text = f"{doing}: {progress.decided} of {progress.clips} clips; {told}"
                console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)

        yield line
        return
    bar = Bar(
        TextColumn(doing), BarColumn(), MofNCompleteColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console
    )
    task = bar.add_task("", total=None)
    with Live(bar, console=console, refresh_per_second=4) as live:

        def show(progress: Progress) -> None:
            bar.update(task, total=progress.clips, completed=progress.decided)
            told = Text("\n".join(f"  {line}" for line in describe(progress.state())))
            live.update(Group(bar, told))

        yield show


def duration(seconds: float) -> str:
    """In the two largest units: ``45 s``, ``12 min 5 s``, ``3 h 20 min``, ``2 d 4 h``."""
    whole = round(seconds)
    for size, unit, small, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def _pace(state: State) -> str:
    recent, overall, left = state["clips_per_s"], state["clips_per_s_overall"], state["left_s"]
    if recent is None or overall is None:
        return ""
    parts = [_rate(recent)]
    if _rate(recent) != _rate(overall):
        parts[0] += f" ({_rate(overall)} since the start)"
    if left:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts)


def _rate(clips_per_s: float) -> str:
    per, unit = (clips_per_s, "s") if clips_per_s >= 1 or not clips_per_s else (60 * clips_per_s, "min")
    return f"{per:.3g} clips/{unit}"


def _outcomes(outcomes: Mapping[str, int]) -> str:
    kinds: Counter[str] = Counter()
    for label, count in outcomes.items():
        kinds[label.partition(":")[0]] += count
    order = [kind for kind in ("kept", "encoded", "rejected", "failed") if kind in kinds]
    text = ", ".join(f"{kinds[kind]} {kind}" for kind in [*order, *sorted(kinds.keys() - order)])
    reasons = [f"{label.partition(': ')[2]} {count}" for label, count in outcomes.items() if ": " in label]
    if reasons:
        text += f"; most often: {', '.join(reasons[:_MOST_OFTEN])}"
    return text


def _work(state: State) -> str:
    if state["workers"] and not any(state["workers"].values()):
        return "no worker is ready yet"
    parts = [f"{count} in {pool} work" for pool, count in state["in_work"].items() if count]
    oldest = state["oldest"]
    if oldest is not None:
        parts.append(f"longest: {oldest['name']}, {duration(oldest['seconds'])} in {oldest['stage']}")
    return ", ".join(parts)


def _trouble(state: State) -> str:
    parts = []
    if state["losses"]:
        causes = ", ".join(f"{label} {count}" for label, count in state["losses"].items())
        parts.append(f"{sum(state['losses'].values())} workers lost ({causes})")
    if state["retries"]:
        parts.append(f"{sum(state['retries'].values())} tries again")
    if any(state["recycled"].values()):
        parts.append(f"{sum(state['recycled'].values())} workers recycled")
    return ", ".join(parts)
