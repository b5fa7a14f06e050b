"""cosmos-xenna: one stage, streaming.

Variants: ``defaults``; ``watchdog``: one task at a time in a worker, so that no neighbour shares its fate, failures passed
over, and a worker ends itself when a clip takes too long.

Xenna returns its results at the end only; each is reported by the worker that has it, so that none is lost with the run.
"""

import os
from contextlib import nullcontext
from typing import Any

import ray
from cosmos_xenna.pipelines import v1 as xenna
from cosmos_xenna.ray_utils import cluster

from bench.survivors.work import WORKERS, Job, Watchdog, load_job, outcome, poisonable
from curation.sources import Clip


class Work(xenna.Stage):
    """The stage."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @property
    def required_resources(self) -> xenna.Resources:
        """One CPU a worker."""
        return xenna.Resources(cpus=1.0)

    def setup(self, worker_metadata: xenna.WorkerMetadata) -> None:  # noqa: ARG002
        """Load the models."""
        self._stage = poisonable(self._job.notes)(self._job.settings)
        self._watchdog: Any = Watchdog(self._job.deadline_s) if self._job.variant == "watchdog" else nullcontext()

    def process_data(self, clips: list[Clip]) -> list[str]:
        """A batch of one clip."""
        for clip in clips:
            with self._watchdog:
                decision = self._stage.decide(clip)[0][0]
            self._job.report(outcome(decision))
        return [clip.source_key for clip in clips]


def main() -> None:
    """Run the pipeline."""
    job = load_job()
    # A Ray of its own, as Xenna starts it; by itself it joins, and asks, whatever other one runs on this machine.
    limit = str(cluster.API_LIMIT)
    os.environ |= {"RAY_MAX_LIMIT_FROM_API_SERVER": limit, "RAY_MAX_LIMIT_FROM_DATA_SOURCE": limit}
    context = ray.init(address="local", num_cpus=WORKERS, include_dashboard=True)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    careful = {"slots_per_actor": 1, "ignore_failures": True} if job.variant == "watchdog" else {}
    xenna.run_pipeline(
        xenna.PipelineSpec(
            input_data=job.clips(),
            stages=[Work(job)],
            config=xenna.PipelineConfig(
                execution_mode=xenna.ExecutionMode.STREAMING,
                return_last_stage_outputs=True,
                cpu_allocation_percentage=1.0,
                **careful,
            ),
        )
    )


if __name__ == "__main__":
    main()
