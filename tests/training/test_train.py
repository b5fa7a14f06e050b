"""A run as all its ranks take it: the same on any number of them, whatever interrupts it; what is refused beforehand."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from faceloom.errors import UserError
from tests.training.datasets import add_latents, write_base
from tests.training.ranks import run_ranks
from training.checkpoint import latest_checkpoint
from training.export import trained_weights
from training.job import Job
from training.stage import Stage
from training.train import train
from training.train_config import TrainConfig

CONFIG: dict[str, Any] = {
    "dtype": "fp32",
    "model": {
        "init": "scratch",
        "scratch": {
            "num_layers": 2,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "time_embed_dim": 16,
            "text_embed_dim": 24,
            "face_tokens": 9,
        },
    },
    "codec": {"codec": "pixels"},
    "data": {"shrink": 15, "face_tokens": "patches", "prefetch_mib": 16},
    "batch": {"size": 4, "micro": 1},
    "checkpoint": {"every": 1000, "keep": 10},
    "metrics": {"every": 1, "tensorboard": False},
    "validation": {"every": 5, "videos": 0, "samples": 1, "timesteps": [500]},
    "ema": {"decay": 0.9},
    # Above the rounding of gradients that are zero but for it (of a bias of keys): Adam would make steps of them.
    "optimizer": {"eps": 1e-6},
}
MOTION = {"name": "motion", "steps": 5, "lr": 1e-3, "trainable": [r"transformer\.patch_embed\.proj\."]}
JOINT = {"name": "joint", "steps": 5, "lr": 1e-3, "trainable": [r"transformer\.transformer_blocks\.1\.", r"face\.2\."]}
STEPS = 10
BORDER = 5
INTERRUPTED = (2, 7)
"""After these steps a run is told to stop: once in each stage."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples in two parts, encoded."""
    root = tmp_path_factory.mktemp("data") / "dataset"
    write_base(root, [(True, True), (True, True)])
    return add_latents(root)


def job(dataset: Path, out: Path, resume: bool = False, **changes: Any) -> Job:
    """Five steps of a stage by DDP and five of one by FSDP, unless ``changes`` of the configuration say otherwise."""
    settings = {**CONFIG, "stages": [MOTION, {**JOINT, "strategy": "fsdp"}], **changes}
    return Job(TrainConfig.model_validate(settings), (dataset,), out, held_out=dataset, resume=resume)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


def trained(jobs: Sequence[Job], ports: Sequence[int], stops: Sequence[int | None]) -> list[bool]:
    """As one rank: the jobs in turn; rank 1 gets a SIGTERM in the step that leads to each of ``stops``."""
    take_step, completed = Stage.step, []
    for each, port, stop in zip(jobs, ports, stops, strict=True):
        os.environ["MASTER_PORT"] = str(port)
        if os.environ["RANK"] == "1" and stop is not None:
            Stage.step = functools.partialmethod(stopped_step, take_step, *divmod(stop - 1, BORDER))  # type: ignore
        completed.append(train(each))
        Stage.step = take_step  # type: ignore[method-assign]
    return completed


def stopped_step(stage: Stage, take_step: Any, number: int, at: int, batches: Any, step: int) -> Any:
    if (stage.number, step) == (number, at):
        os.kill(os.getpid(), signal.SIGTERM)
    return take_step(stage, batches, step)


def run(folder: Path, world: int, jobs: Sequence[Job], stops: Sequence[int | None] | None = None) -> list[bool]:
    """Whether each of ``jobs`` was taken to its end, on ``world`` ranks one after the other."""
    stops = stops or [None] * len(jobs)
    ports = [free_port() for _ in jobs]
    by_rank = run_ranks(folder, world, trained, jobs, ports, stops, timeout_s=400)
    assert by_rank == by_rank[:1] * world
    return list(by_rank[0])


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl`` without what differs between two runs of the same: speed and memory."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(("speed/", "memory/"))} for line in lines]


def numbers(run: Path) -> dict[str, list[float]]:
    """What was measured of each step, by what it is."""
    steps = [line for line in metrics(run) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    found = {name: [line[name] for line in steps] for name in ("loss", "grad_norm", "lr", "weight/mean")}
    held_out = [line["held_out"] for line in metrics(run) if "held_out" in line]
    assert len(held_out) == 3
    return {**found, "held_out": held_out}


def tensors(run: Path, step: int = STEPS) -> dict[str, Tensor]:
    """All that the checkpoint of ``step`` holds: weights, averages, the optimizer's state."""
    reader = FileSystemReader(run / "checkpoints" / f"step-{step:08d}")
    stored = reader.read_metadata().state_dict_metadata
    found = {name: torch.empty(each.size, dtype=each.properties.dtype) for name, each in stored.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)  # as it should be
        dcp_load(found, storage_reader=reader, no_dist=True)
    return found


def assert_same_training(run: Path, reference: Path) -> None:
    """Equal within float error: what was measured, and what came out of both stages."""
    for name, values in numbers(reference).items():
        assert numbers(run)[name] == pytest.approx(values, rel=1e-6 if name == "loss" else 1e-5), name
    for step in (BORDER, STEPS):
        found, expected = tensors(run, step), tensors(reference, step)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name.startswith(("model.", "ema.")):
                torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def assert_same_bits(run: Path, reference: Path) -> None:
    """Every bit of what was measured, of the weights, the averages and the optimizer, and where it stands in the data."""
    assert metrics(run) == metrics(reference)
    found, expected = (latest_checkpoint(each / "checkpoints") for each in (run, reference))
    assert found is not None
    assert expected is not None
    assert (found.step, found.facts) == (expected.step, expected.facts)
    mine, theirs = tensors(run), tensors(reference)
    assert mine.keys() == theirs.keys()
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


# --- any number of ranks, any interruption


@pytest.fixture(scope="module")
def alone(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that has the global batch at once, by DDP alone."""
    folder = tmp_path_factory.mktemp("alone")
    stages = [MOTION, {**JOINT, "strategy": "ddp"}]
    at_once = job(dataset, folder / "run", stages=stages, batch={"size": 4, "micro": 4})
    assert run(folder / "ranks", 1, [at_once]) == [True]
    return folder / "run"


@pytest.fixture(scope="module")
def pair(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two ranks: ``whole``, and ``halted`` at each of INTERRUPTED and gone on with; ``copy`` is what halted last."""
    folder = tmp_path_factory.mktemp("pair")
    whole, halted = job(dataset, folder / "whole"), job(dataset, folder / "halted")
    again = job(dataset, folder / "halted", resume=True)
    jobs = [whole, halted, again]
    assert run(folder / "ranks", 2, jobs, [None, *INTERRUPTED]) == [True, False, False]
    shutil.copytree(folder / "halted", folder / "copy")
    assert run(folder / "ranks", 2, [again]) == [True]
    return folder


def test_two_ranks_train_as_one_process_does(pair: Path, alone: Path) -> None:
    assert_same_training(pair / "whole", alone)


def test_four_ranks_train_as_one_process_does(dataset: Path, alone: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "ranks", 4, [job(dataset, tmp_path / "run")]) == [True]
    assert_same_training(tmp_path / "run", alone)


def test_a_run_that_was_stopped_in_each_stage_ends_with_the_bits_of_one_that_was_not(pair: Path) -> None:
    assert_same_bits(pair / "halted", pair / "whole")


def test_a_run_that_was_stopped_goes_on_with_another_number_of_ranks(pair: Path, alone: Path, dataset: Path) -> None:
    more = job(dataset, pair / "copy", resume=True, batch={"size": 4, "micro": 2})
    assert run(pair / "copy-ranks", 1, [more]) == [True]
    assert_same_training(pair / "copy", alone)


def test_a_run_that_is_complete_is_left_as_it_is(pair: Path, dataset: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = metrics(pair / "whole")
    assert train(job(dataset, pair / "whole", resume=True))
    assert "nothing to do" in capfd.readouterr().out
    assert metrics(pair / "whole") == before


# --- a disk that fills up


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of ``size``; skips the test where it cannot be made."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_up_costs_checkpoints_and_no_training(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The identity stage has by far the most state: the checkpoints before it fit, and none of its own.
    identity = MOTION | {"name": "identity", "trainable": [r"face\."]}
    changes = {"stages": [MOTION, identity], "checkpoint": {"every": 2}, "metrics": {"every": 1, "tensorboard": True}}
    with small_disk(tmp_path / "disk", "30m") as disk:
        with pytest.raises(UserError, match=r"checkpoint of step 10 could not be written: .*No space left"):
            train(job(dataset, disk / "run", **changes))
        assert len(numbers(disk / "run")["loss"]) == STEPS
        assert {record.message.split(" could")[0] for record in caplog.records if "could" in record.message} == {
            f"the checkpoint of step {step}" for step in (6, 8, 10)
        }
        checkpoint = latest_checkpoint(disk / "run" / "checkpoints")
        assert checkpoint is not None
        assert checkpoint.step == BORDER
        assert trained_weights(checkpoint, ema=False).keys() == {
            "transformer.patch_embed.proj.weight",
            "transformer.patch_embed.proj.bias",
        }
        assert [path.name for path in (disk / "run" / "checkpoints").glob(".*")] == []


# --- what is refused, and leaves no folder behind


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": {"size": 5, "micro": 2}}, r"batch\.size 5 cannot be shared by 1 ranks.* make it 4 or 6"),
        ({"data": CONFIG["data"] | {"layer": "latents-other"}}, r"latents-other.*faceloom encode"),
        ({"data": CONFIG["data"] | {"shrink": 1}, "codec": {"codec": "vae"}}, r"codec pixels, and codec\.codec is vae"),
        ({"model": {"init": "no/such-model"}}, r"model\.init.*no/such-model"),
        # Of the last stage, which a run comes to after days.
        (
            {"stages": [MOTION, JOINT | {"trainable": [r"guider\."]}]},
            r"stage joint: trainable 'guider.*fits no parameter",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(job(dataset, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_dataset_to_validate_on_that_is_not_there_is_refused_before_anything_is_written(
    dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no readable dataset at"):
        train(replace(job(dataset, tmp_path / "run"), held_out=tmp_path / "absent"))
    assert not (tmp_path / "run").exists()


def refusal(refused: Job) -> str:
    with pytest.raises(UserError) as error:
        train(refused)
    return str(error.value)


def test_all_ranks_refuse_a_batch_that_they_cannot_share(dataset: Path, tmp_path: Path) -> None:
    three = job(dataset, tmp_path / "run", batch={"size": 3, "micro": 1})
    messages = run_ranks(tmp_path / "ranks", 2, refusal, three)
    assert all("batch.size 3 cannot be shared by 2 ranks" in message for message in messages)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_refused_unless_it_is_to_be_resumed(pair: Path, dataset: Path) -> None:
    with pytest.raises(UserError, match="holds a run already; go on with it by --resume"):
        train(job(dataset, pair / "whole"))


def test_a_run_is_not_resumed_with_another_configuration(pair: Path, dataset: Path) -> None:
    before = (pair / "whole" / "run.json").read_bytes()
    with pytest.raises(UserError, match=r"holds another run; what differs:\n  seed: 0 → 7\n"):
        train(job(dataset, pair / "whole", resume=True, seed=7))
    assert (pair / "whole" / "run.json").read_bytes() == before


def test_a_run_is_not_resumed_with_other_samples(pair: Path, tmp_path: Path) -> None:
    root = tmp_path / "other"
    write_base(root, [(True, False), (True, True)])
    with pytest.raises(UserError, match=r"holds another run; what differs:\n  samples: \w+ → \w+\n"):
        train(job(add_latents(root), pair / "halted", resume=True))
