"""Ranks that die and come back as more or fewer: real processes, gloo, and the loader that training uses.

Two ranks save after five batches, read two more and are killed. One rank, and three, go on from what was saved.
"""

import json
import multiprocessing
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch.distributed

from shards.loader import Loader, resume
from shards.plan import DatasetShape, Plan
from shards.reader import ShardedDataset
from tests.shards.conftest import build_dataset

GLOBAL_BATCH, SAVED, KILLED, ALL = 6, 5, 7, 16  # in batches: of 14 samples, so that ALL is 6 epochs and 12 samples


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 samples in 7 shards, and a shard without any."""
    return build_dataset(tmp_path_factory.mktemp("elastic"), clips=24)


def open_plan(root: Path) -> tuple[ShardedDataset, Plan]:
    samples = ShardedDataset(root, ["pose.npy"])
    return samples, Plan([DatasetShape(samples.digest, samples.shard_sizes)], seed=11)


def train(root: Path, run: Path, rank: int, world: int, until: int) -> None:
    """One rank of a run: note the clips of every batch; after ``SAVED`` batches, save; at ``KILLED``, die."""
    if world > 1:
        store = f"file://{run}/store-of-{world}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    samples, plan = open_plan(root)
    checkpoint = run / "checkpoint.json"
    consumed = resume(json.loads(checkpoint.read_text()), plan) if checkpoint.exists() else 0
    with Loader([samples], plan, GLOBAL_BATCH, rank=rank, world=world, consumed=consumed) as loader:
        for number in range(consumed // GLOBAL_BATCH, until):
            (run / f"batch-{number}-{world}-{rank}.json").write_text(json.dumps(next(loader)["__key__"]))
            if number + 1 == SAVED:
                (run / f"state-{rank}.json").write_text(json.dumps(loader.state()))
        if until == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


def launch(root: Path, run: Path, world: int, until: int) -> list[int | None]:
    """Run all ranks of a world to their end; their exit codes."""
    spawn = multiprocessing.get_context("spawn")
    ranks = [spawn.Process(target=train, args=(root, run, rank, world, until)) for rank in range(world)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(240)
    return [process.exitcode for process in ranks]


def batch(run: Path, number: int, world: int) -> list[str]:
    """The clips of a batch, rank after rank."""
    return [
        key for rank in range(world) for key in json.loads((run / f"batch-{number}-{world}-{rank}.json").read_text())
    ]


@pytest.fixture(scope="module")
def killed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    assert launch(root, run, 2, KILLED) == [-signal.SIGKILL] * 2
    return run


@pytest.fixture(scope="module")
def uninterrupted(root: Path) -> list[list[str]]:
    samples, plan = open_plan(root)
    with Loader([samples], plan, GLOBAL_BATCH) as loader:
        return [next(loader)["__key__"] for _ in range(ALL)]


def test_every_rank_would_save_the_same_three_values(killed: Path, root: Path) -> None:
    states = [json.loads((killed / f"state-{rank}.json").read_text()) for rank in range(2)]
    assert states == [{"digest": open_plan(root)[1].digest, "seed": 11, "consumed": SAVED * GLOBAL_BATCH}] * 2


@pytest.mark.parametrize("world", [1, 3])
def test_another_number_of_ranks_goes_on_in_the_same_order(
    killed: Path, root: Path, uninterrupted: list[list[str]], tmp_path: Path, world: int
) -> None:
    run = Path(shutil.copytree(killed, tmp_path / "run"))
    shutil.copy(run / "state-0.json", run / "checkpoint.json")
    assert launch(root, run, world, ALL) == [0] * world
    before = [batch(run, number, 2) for number in range(KILLED)]
    after = [batch(run, number, world) for number in range(SAVED, ALL)]
    assert before[:SAVED] + after == uninterrupted
    assert before[SAVED:] == after[: KILLED - SAVED]  # what was read but not saved comes once more

    read = [key for clips in before[:SAVED] + after for key in clips]
    samples = len(open_plan(root)[0])
    epochs = [Counter(read[start : start + samples]) for start in range(0, len(read), samples)]
    clips = set(epochs[0])
    assert len(clips) == samples
    assert all(epoch == Counter(clips) for epoch in epochs[:-1])
    assert set(epochs[-1].values()) == {1}
