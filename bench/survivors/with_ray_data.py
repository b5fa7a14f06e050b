"""Ray Data: one ``map_batches`` over a pool of actors, one clip a batch.

Variants: ``defaults``; ``bounded``: one clip a block and one at a time in an actor, so that no neighbour shares its fate, one
retry, and blocks that fail are passed over; ``watchdog``: the same, and a worker ends itself when a clip takes too long.
"""

from contextlib import nullcontext
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext

from bench.survivors.work import WORKERS, Job, Watchdog, load_job, outcome, poisonable

NO_PROGRESS_S = 120


class Work:
    """What an actor keeps."""

    def __init__(self, job: Job) -> None:
        self._stage = poisonable(job.notes)(job.settings)
        self._watchdog = Watchdog(job.deadline_s) if job.variant == "watchdog" else nullcontext()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A batch of one clip into what became of it."""
        with self._watchdog:
            decisions = [self._stage.decide(clip)[0][0] for clip in batch["clip"]]
        return {"decided": [outcome(decision) for decision in decisions]}


def main() -> None:
    """Read the results as they come."""
    job = load_job()
    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    # Half an hour by default; nothing takes longer than a few seconds here.
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    bounds: dict[str, Any] = {}
    blocks, at_once = None, None
    clips = job.clips()
    if job.variant != "defaults":
        context.max_errored_blocks = -1
        bounds = {"max_restarts": -1, "max_task_retries": 1}
        blocks, at_once = len(clips), 1
    dataset = ray.data.from_items([{"clip": clip} for clip in clips], override_num_blocks=blocks)
    decided = dataset.map_batches(
        Work,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ActorPoolStrategy(size=WORKERS, max_tasks_in_flight_per_actor=at_once),
        num_cpus=1,
        **bounds,
    )
    for row in decided.iter_rows():
        job.report(row["decided"])


if __name__ == "__main__":
    main()
