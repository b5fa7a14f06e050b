"""A training run on a Ray cluster: Ray Train places its ranks and starts them; what they do is the same as under torchrun."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from faceloom.cluster import connect
from faceloom.errors import CheckFailed, UserError
from training.job import Job
from training.train import train

logger = logging.getLogger(__name__)

RESTARTS = 3
"""How often a run that lost a rank is started again, from its last checkpoint."""


def launch(job: Job, address: str | None, workers: int | None) -> bool:
    """Train on the cluster at ``address``, or on one that is started here, and wait for the end; true.

    ``workers`` ranks, by default one for each GPU of the cluster, or one where it has none. All nodes see the folders of
    ``job``. A run that loses a rank (a node, a crash, out of memory) is gone on with from its last checkpoint, at most
    ``RESTARTS`` times; bad input is not tried again.

    Relative paths in ``job`` are from this process's folder, also on other nodes. A signal to this process ends the run where
    it is, without another checkpoint.

    Raises :class:`UserError` and :class:`CheckFailed` as :func:`training.train.train`, and if the cluster has no room.
    """
    resources = connect(address)
    gpus = int(resources.get("GPU", 0))
    ranks = workers or gpus or 1
    for kind, there in (("GPU", gpus),) if gpus else (("CPU", int(resources.get("CPU", 0))),):
        if ranks > there:
            raise UserError(f"--workers is {ranks}, the cluster has {there} {kind}s; give fewer, or add nodes")
    try:
        for attempt in range(RESTARTS + 1):
            try:
                _trainer(job if attempt == 0 else replace(job, resume=True), ranks, bool(gpus)).fit()
                return True
            except TrainingFailedError as error:
                _raise_if_final(error, last=attempt == RESTARTS)
                logger.warning(
                    "the run lost a rank and goes on from its last checkpoint (%d of %d): %s",
                    attempt + 1,
                    RESTARTS,
                    error,
                )
    finally:
        ray.shutdown()
    raise AssertionError("the last attempt raises what was wrong with it")


def _trainer(job: Job, ranks: int, gpus: bool) -> TorchTrainer:
    return TorchTrainer(
        _rank,
        train_loop_config={"job": job, "folder": Path.cwd()},
        scaling_config=ScalingConfig(num_workers=ranks, use_gpu=gpus),
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if gpus else "gloo", timeout_s=int(job.config.parallel.init_timeout_s)
        ),
        run_config=RunConfig(name="ray", storage_path=str(job.out.absolute())),
    )


def _rank(config: dict[str, Any]) -> None:
    """What each worker of Ray Train does."""
    folder: Path = config["folder"]
    if folder.is_dir():
        os.chdir(folder)  # Ray Train put it into a folder of its own
    train(config["job"])


def _raise_if_final(error: TrainingFailedError, last: bool) -> None:
    """Raise what went wrong, unless starting again may help."""
    failures = error.worker_failures if isinstance(error, WorkerGroupError) else {}
    for failure in failures.values():
        # The other ranks' failures are that they lost this one.
        if isinstance(failure, UserError | CheckFailed):
            raise failure from None
    if last:
        raise CheckFailed(f"the run was lost {RESTARTS + 1} times: {error}") from None
