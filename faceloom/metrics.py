"""What a run tells Prometheus, through Ray: every metric by its name, and how a driver keeps them up.

Ray has an endpoint on each node, of a cluster that ``ray start`` began as of one that a command starts for itself. The driver
alone reports, for it sees every result; so no worker's death takes counts with it. Counters begin at 0 with each driver: a
resumed run counts what it decides itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ray.util import metrics as ray_metrics

from faceloom.progress import Progress


@dataclass(frozen=True)
class Metric:
    """One metric: ``name`` without what Ray adds to it. Every one is also tagged with ``command`` and ``dataset``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """Its name at Ray's endpoint."""
        return f"ray_{self.name}{'_total' if self.kind == 'counter' else ''}"


CLIPS = Metric("faceloom_clips", "counter", "Clips decided, by outcome and rule or error", ("outcome", "because"))
DEATHS = Metric("faceloom_worker_deaths", "counter", "Workers lost over a clip", ("stage", "cause"))
RETRIES = Metric(
    "faceloom_retries", "counter", "Clips tried again in another worker, and sources fetched again", ("stage",)
)
RECYCLED = Metric("faceloom_workers_recycled", "counter", "Workers replaced after long work", ("stage",))
BLOCKS = Metric("faceloom_blocks_committed", "counter", "Blocks committed")
BYTES = Metric("faceloom_shard_bytes", "counter", "Bytes of the shards of committed blocks")
SOURCE_S = Metric("faceloom_source_seconds", "counter", "Seconds of footage that clips decided were cut from")
# Ray's endpoint gives of a histogram's values their buckets; its sum is made of the middles of these.
BUSY_S = Metric("faceloom_busy_seconds", "counter", "Seconds that workers spent in each step", ("step",))
STEP_S = Metric(
    "faceloom_step_seconds",
    "histogram",
    "Seconds that a clip spent in each step",
    ("step",),
    (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000),
)
ALL = Metric("faceloom_clips_all", "gauge", "Clips that the run has to decide, with those of earlier runs")
DECIDED = Metric("faceloom_clips_decided", "gauge", "Clips decided, by this run and earlier ones")
IN_WORK = Metric("faceloom_in_work", "gauge", "Clips in a worker now", ("stage",))
WORKERS = Metric("faceloom_workers", "gauge", "Workers of each pool", ("stage",))
WAITING = Metric("faceloom_waiting", "gauge", "1 if the pool has clips and no worker", ("stage",))
OLDEST_S = Metric("faceloom_oldest_seconds", "gauge", "Seconds that the clip longest in a worker has been there")
OPEN = Metric("faceloom_blocks_open", "gauge", "Blocks begun and not committed")

METRICS = (
    *(CLIPS, DEATHS, RETRIES, RECYCLED, BLOCKS, BYTES, SOURCE_S, BUSY_S, STEP_S),
    *(ALL, DECIDED, IN_WORK, WORKERS, WAITING, OLDEST_S, OPEN),
)


class RunMetrics:
    """The metrics of one run of ``command`` on ``dataset``, which both become tags."""

    def __init__(self, command: str, dataset: str) -> None:
        self._common = {"command": command, "dataset": dataset}
        self._recorders = {metric: _recorder(metric) for metric in METRICS}
        self._counted: dict[tuple[Metric, tuple[str, ...]], float] = {}
        self._seen: dict[Metric, set[tuple[str, ...]]] = {}

    def follow(self, progress: Progress) -> None:
        """Bring all that is in ``progress`` up to date."""
        for metric, values in _told(progress):
            if metric.kind == "gauge":
                # What has no value any more would stay at its last one.
                gone = self._seen.get(metric, set()) - values.keys()
                self._seen[metric] = set(values)
                for tags, value in {**dict.fromkeys(gone, 0.0), **values}.items():
                    self._recorders[metric].set(value, tags=self._tags(metric, tags))
            else:
                for tags, value in values.items():
                    self._count_up_to(metric, tags, value)

    def spent(self, step_s: Mapping[str, float]) -> None:
        """A clip, or a further window of one, is decided and has cost so many seconds by step."""
        for step, seconds in step_s.items():
            self._recorders[STEP_S].observe(seconds, tags=self._tags(STEP_S, (step,)))
            self._add(BUSY_S, (step,), seconds)

    def footage(self, seconds: float) -> None:
        """A clip is decided that lasts ``seconds``."""
        self._add(SOURCE_S, (), seconds)

    def committed(self, nbytes: int) -> None:
        """A block is committed, its shard of ``nbytes``."""
        self._add(BYTES, (), nbytes)

    def _count_up_to(self, metric: Metric, tags: tuple[str, ...], value: float) -> None:
        # A block that is done anew takes its clips back first; a counter only grows.
        more = value - self._counted.get((metric, tags), 0.0)
        if more > 0:
            self._counted[metric, tags] = value
            self._add(metric, tags, more)

    def _add(self, metric: Metric, tags: tuple[str, ...], amount: float) -> None:
        if amount > 0:
            self._recorders[metric].inc(amount, tags=self._tags(metric, tags))

    def _tags(self, metric: Metric, values: tuple[str, ...]) -> dict[str, str]:
        return {**self._common, **dict(zip(metric.tags, values, strict=True))}


def _told(progress: Progress) -> Iterator[tuple[Metric, dict[tuple[str, ...], float]]]:
    """What each metric is now, by its tags."""
    yield CLIPS, {_two(label): count for label, count in progress.outcomes.items()}
    yield DEATHS, {_two(label): count for label, count in progress.losses.items()}
    yield RETRIES, {(stage,): count for stage, count in progress.retries.items()}
    yield RECYCLED, {(stage,): count for stage, count in progress.recycled.items()}
    yield BLOCKS, {(): progress.blocks_committed}
    yield ALL, {(): progress.clips}
    yield DECIDED, {(): progress.decided}
    yield IN_WORK, {(stage,): count for stage, count in progress.in_work.items()}
    yield WORKERS, {(stage,): count for stage, count in progress.workers.items()}
    yield WAITING, {(stage,): float(stage in progress.waiting) for stage in progress.workers}
    yield OLDEST_S, {(): progress.oldest.seconds if progress.oldest else 0.0}
    yield OPEN, {(): progress.blocks_open}


def _two(label: str) -> tuple[str, str]:
    kind, _, because = label.partition(": ")
    return kind, because


def _recorder(metric: Metric) -> Any:
    tags = ("command", "dataset", *metric.tags)
    if metric.kind == "histogram":
        return ray_metrics.Histogram(
            metric.name, description=metric.meaning, boundaries=list(metric.boundaries), tag_keys=tags
        )
    kind = ray_metrics.Counter if metric.kind == "counter" else ray_metrics.Gauge
    return kind(metric.name, description=metric.meaning, tag_keys=tags)
