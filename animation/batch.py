"""Many pairs on a Ray cluster: one pool of workers, a table of results that is true at any moment.

A pair is a block of the engine's own: its video is written by its worker, whole or not at all, then its row by the driver.
Calls, deaths and deadlines are the business of :mod:`faceloom.engine`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from animation.animate_config import AnimateConfig
from animation.loading import checkpoint_digest
from animation.pairs import Row
from animation.results import Failure, Outcome, read_results, still_holds, write_results
from animation.worker import AnimateWorker
from faceloom import __version__
from faceloom.engine import Engine, Loss
from faceloom.errors import UserError
from faceloom.pool import Stage, Verdict
from faceloom.progress import Progress
from faceloom.watch import Watch
from faceloom.workers import pool_size, refuse_unreserved_gpu
from shards.storage import make_folder, remove_temporaries

LEASE = "driver.animate.json"
_OPEN = 1000
"""Pairs that are handed out ahead of their results, at most: the engine's unit of memory is a pair here."""


@dataclass(frozen=True)
class BatchPlan:
    """A batch that may start: what is asked for, and what of it an earlier run has made."""

    checkpoint: str
    config: AnimateConfig
    rows: tuple[Row, ...]
    folder: Path
    run: Mapping[str, str]
    """What decides the videos beside their pairs: version, checkpoint, settings."""
    done: Mapping[str, Mapping[str, Any]]
    """Rows of the table of results that still hold, by name."""

    @property
    def left(self) -> tuple[Row, ...]:
        """What is to be animated."""
        return tuple(row for row in self.rows if row.name not in self.done)


def plan_batch(checkpoint: Path, config: AnimateConfig, rows: list[Row], folder: Path) -> BatchPlan:
    """Look after what ``folder`` holds already; a pair is done if its video is whole and newer than its files.

    Raises :class:`UserError` if the folder cannot be made, or holds videos that were made otherwise.
    """
    refuse_unreserved_gpu(config.load.device, config.batch.gpus, device_key="load.device", gpus_key="batch.gpus")
    folder = folder.absolute()
    try:
        make_folder(folder)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; choose another --out") from None
    deciding = config.model_dump(
        mode="json",
        exclude={
            "batch": {"workers", "cpus", "gpus", "deadline_s", "wait_s"},
            "load": {"device"},
            "seed": True,
            "app": True,
        },
    )
    run = {
        "faceloom": __version__,
        "checkpoint": checkpoint_digest(checkpoint),
        "config": json.dumps(deciding, sort_keys=True),
    }
    earlier = read_results(folder, run)
    done = {
        row.name: earlier[row.name]
        for row in rows
        if row.name in earlier and still_holds(earlier[row.name], row, folder)
    }
    return BatchPlan(str(checkpoint.absolute()), config, tuple(rows), folder, run, done)


class BatchRunner:
    """Carries out a :class:`BatchPlan` on the Ray cluster that this process is connected to; the engine's procedure."""

    def __init__(self, plan: BatchPlan, workers: int, report: Callable[[Progress], None]) -> None:
        self._plan = plan
        self._workers = workers
        self._watch = Watch("animate", plan.folder / LEASE, plan.folder, report)
        self._cells: dict[str, Mapping[str, Any]] = dict(plan.done)
        self.progress = Progress(clips=len(plan.rows), decided=len(plan.done))

    def run(self) -> list[Mapping[str, Any]]:
        """Animate every pair that is left; returns the rows of the table, in the order of the batch.

        Raises :class:`UserError` when another driver is at work on the folder, when workers cannot start or the table cannot
        be written; the videos that were made stay, and the same command goes on from there.
        """
        with self._watch:
            remove_temporaries(self._plan.folder)
            self._engine().run()
            # What workers left that died while they wrote: of this run, and nobody writes any more.
            remove_temporaries(self._plan.folder)
        return self._rows()

    def name(self, row: Row) -> str:
        """Its name."""
        return row.name

    def identity(self, row: Row) -> str:
        """Its name."""
        return row.name

    def verdict(self, outcome: Outcome) -> Verdict:
        """A failure that is no :class:`UserError` may be the worker's."""
        failure = outcome.failure
        if failure is None:
            return Verdict("animated", passed=True)
        return Verdict.failed(failure.stage, failure.error, failure.message, suspicious=outcome.suspicious)

    def given_up(self, row: Row, _outcome: Outcome | None, loss: Loss) -> Outcome:
        """``failed``."""
        return Outcome(row, None, Failure("worker", loss.error, _told(loss)), 0.0)

    def write(self, _block: int, results: list[Outcome], _payloads: list[ray.ObjectRef]) -> ray.ObjectRef:
        """The video is written already; the row is written when the engine says that it may be."""
        return ray.put(results[0])

    def decided(self, row: Row, outcome: Outcome) -> None:
        """For the log."""
        failure = outcome.failure
        if failure is not None:
            what = (failure.stage, failure.error, failure.message)
            self._watch.failed(row.name, row.name, *what, trace=outcome.traceback, grave=outcome.suspicious)

    def committed(self, _block: int, outcome: Outcome) -> None:
        """Write the table anew, with this row."""
        self._watch.check()
        self._cells[outcome.row.name] = outcome.cells()
        try:
            write_results(self._plan.folder, self._rows(), self._plan.run)
        except OSError as error:
            raise UserError(
                f"cannot write to {self._plan.folder}: {error.strerror}; mend its rights or make room"
            ) from None

    def _rows(self) -> list[Mapping[str, Any]]:
        return [self._cells[row.name] for row in self._plan.rows if row.name in self._cells]

    def _engine(self) -> Engine[Row, Outcome]:
        plan, batch = self._plan, self._plan.config.batch
        settings = ray.put(plan.config)

        def worker() -> Any:
            placed = AnimateWorker.options(num_cpus=batch.cpus, num_gpus=batch.gpus)
            return placed.remote(plan.checkpoint, settings, str(plan.folder))

        stage: Stage[Row, Outcome] = Stage(
            "animation", self._workers, worker, _animate, deadline_s=batch.deadline_s, needs=batch.needs
        )
        return Engine(
            self,
            (stage,),
            ((number, [row]) for number, row in enumerate(plan.left)),
            item_mib=1,
            held_mib=_OPEN,
            where=str(plan.folder),
            progress=self.progress,
            report=self._watch.report,
            sizes=lambda resources: [batch_pool_size(plan.config, resources)],
            wait_s=batch.wait_s,
        )


def batch_pool_size(config: AnimateConfig, resources: Mapping[str, float]) -> int:
    """How many workers a cluster with ``resources`` has room for; see :func:`faceloom.workers.pool_size`."""
    return pool_size(config.batch, resources, worker="an animation worker", section="batch")


def _told(loss: Loss) -> str:
    worker, times = f"the {loss.stage} worker", f"{loss.times} times over this pair"
    if loss.error == "DeadlineExceeded":
        return (
            f"{worker} was not done by its deadline, {times}; raise batch.deadline_s, or give a shorter driving video"
        )
    if loss.error == "WorkerDied":
        return f"{worker} was killed, as for want of memory, or crashed, {times}; lower batch.workers, or re-encode its files"
    return f"{worker} met a {loss.error} {times}; mend the machine"


def _animate(worker: Any, row: Row, _outcome: Outcome | None, _payload: ray.ObjectRef | None) -> Any:
    return worker.animate.options(num_returns=2).remote(row)
