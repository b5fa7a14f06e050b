"""``faceloom train`` by its true commands: alone, by torchrun and on Ray, told to stop and killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch
import yaml

from faceloom.config import load
from faceloom.errors import UserError
from tests.e2e.command import faceloom, kill_with_descendants, lives
from tests.training.datasets import add_latents, write_base
from tests.training.test_train import CONFIG, JOINT, MOTION, STEPS, metrics, tensors
from training import ray_launch
from training.checkpoint import latest_checkpoint
from training.job import Job
from training.train import train
from training.train_config import TrainConfig

pytestmark = pytest.mark.e2e
TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four samples, encoded."""
    root = tmp_path_factory.mktemp("data") / "dataset"
    write_base(root, [(True, True), (True, True)])
    return add_latents(root)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stages of DDP, five steps each, a checkpoint every two."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    changes = {"stages": [MOTION, JOINT], "checkpoint": {"every": 2, "keep": 10}}
    path.write_text(yaml.safe_dump({"train": CONFIG | changes}))
    return path


@pytest.fixture(scope="module")
def undisturbed(settings: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process that nothing happens to."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train_here(settings, dataset, out)
    return out


def train_here(settings: Path, dataset: Path, out: Path, resume: bool = False) -> None:
    """As the command does, without the seconds that it takes to start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert train(Job(load(TrainConfig, str(settings), ()), (dataset,), out, resume=resume))
    finally:
        torch.set_num_threads(threads)


ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def arguments(settings: Path, dataset: Path, out: Path) -> tuple[str | Path, ...]:
    return ("train", "--config", settings, "--data", dataset, "--out", out)


@contextmanager
def started(log: Path, *line: str | Path) -> Iterator[psutil.Process]:
    """``python -m line…`` at work, its output in ``log``; dead with all it started when the block is left."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | ONE_THREAD
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", *map(str, line)],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as command,
    ):
        process = psutil.Process(command.pid)
        try:
            yield process
        finally:
            kill_with_descendants(process)


def wait_for_step(out: Path, step: int, command: psutil.Process, log: Path) -> None:
    """Until the run in ``out`` has reported ``step``."""
    end = time.monotonic() + TIMEOUT_S
    while not any(line >= step for line in reported(out)):
        assert lives(command), f"the command ended before step {step}:\n{log.read_text()}"
        assert time.monotonic() < end, f"step {step} never came:\n{log.read_text()}"
        time.sleep(0.005)


def reported(out: Path) -> list[int]:
    try:
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["step"] for line in lines]
    except (FileNotFoundError, ValueError):
        return []


def workers(command: psutil.Process, title: str) -> list[psutil.Process]:
    """The processes below ``command`` whose command line has ``title``, by pid."""
    found = []
    for process in command.children(recursive=True):
        try:
            if title in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return sorted(found, key=lambda process: process.pid)


def assert_same_training(out: Path, undisturbed: Path, exactly: bool) -> None:
    """The same losses in every step, and the same weights, averages and optimizer."""
    mine, theirs = (
        [(line["step"], line["loss"]) for line in metrics(run) if "loss" in line] for run in (out, undisturbed)
    )
    assert [step for step, _ in mine] == list(range(1, STEPS + 1))
    found, expected = tensors(out), tensors(undisturbed)
    assert found.keys() == expected.keys()
    if exactly:
        assert mine == theirs
        assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    else:
        assert [loss for _, loss in mine] == pytest.approx([loss for _, loss in theirs], rel=1e-6)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_told_to_stop_it_saves_and_leaves_and_goes_on_with_the_same_bits(
    settings: Path, dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    with started(log, "faceloom", *arguments(settings, dataset, out)) as command:
        wait_for_step(out, 2, command, log)
        command.send_signal(signal.SIGTERM)
        assert command.wait(TIMEOUT_S) == 143, log.read_text()
    stopped = reported(out)[-1]
    assert f"stopped by a signal after step {stopped}; go on with --resume" in log.read_text()
    checkpoint = latest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.step == stopped < STEPS

    train_here(settings, dataset, out, resume=True)

    assert_same_training(out, undisturbed, exactly=True)


def test_a_rank_of_torchrun_that_is_killed_ends_the_job_which_goes_on_from_its_last_checkpoint(
    settings: Path, dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    line = ("torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "training")
    with started(log, *line, *arguments(settings, dataset, out)[1:]) as command:
        wait_for_step(out, 4, command, log)
        killed = workers(command, "training --config")[1]
        killed.kill()
        assert command.wait(TIMEOUT_S) == 1, log.read_text()
    assert "Signal 9 (SIGKILL)" in log.read_text()
    assert str(killed.pid) in log.read_text()
    checkpoint = latest_checkpoint(out / "checkpoints")
    assert checkpoint is not None
    assert 2 <= checkpoint.step < STEPS

    faceloom(*arguments(settings, dataset, out), "--resume", environment=ONE_THREAD)

    assert_same_training(out, undisturbed, exactly=False)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@pytest.mark.slow
def test_ray_starts_a_run_that_lost_a_rank_again_from_its_last_checkpoint(
    settings: Path, dataset: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    # From the folder of the data: the workers are elsewhere.
    line = ("train", "--config", settings, "--data", os.path.relpath(dataset), "--out", os.path.relpath(out))
    with started(log, "faceloom", *line, "--ray", "--workers", "2") as command:
        wait_for_step(out, 4, command, log)
        workers(command, "RayTrainWorker")[0].kill()
        assert command.wait(TIMEOUT_S) == 0, log.read_text()
    assert "goes on from its last checkpoint (1 of 3)" in log.read_text()
    assert_same_training(out, undisturbed, exactly=False)


@pytest.mark.slow
def test_ray_does_not_try_bad_input_again(settings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refused = Job(load(TrainConfig, str(settings), ()), (tmp_path / "absent",), tmp_path / "run")
    with pytest.raises(UserError, match=f"^no readable dataset at {tmp_path / 'absent'}"):
        ray_launch.launch(refused, None, workers=1)
    assert "goes on from its last checkpoint" not in caplog.text
