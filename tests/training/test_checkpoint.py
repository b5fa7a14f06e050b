import json
import logging
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import training.checkpoint
from faceloom.errors import UserError
from tests.training.ranks import run_ranks, start_ranks
from tests.training.test_parallel import JOINT, PLAIN, adam, tiny_model, train, whole_parameters
from training.checkpoint import Checkpoints, latest_checkpoint, read_checkpoint
from training.checkpoint_config import CheckpointConfig
from training.parallel import Strategy, finish, parallelize, start
from training.state import optimizer_state, trainable_state

SYNCHRONOUS = CheckpointConfig(every=10, keep=2, asynchronous=False)
ASYNCHRONOUS = CheckpointConfig(every=10, keep=2, asynchronous=True)


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process only."""
    start(PLAIN)
    yield
    finish()


def tensors(value: float, size: int = 5) -> dict[str, dict[str, Tensor]]:
    return {"model": {"a.weight": torch.full((size, 3), value), "b.bias": torch.full((4,), value)}}


def loaded_value(checkpoints: Checkpoints) -> float:
    into = tensors(-1.0)
    checkpoint = checkpoints.latest()
    assert checkpoint is not None
    checkpoints.load(checkpoint, into)
    assert len({float(x) for part in into["model"].values() for x in part.flatten()}) == 1
    return float(into["model"]["b.bias"][0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- a run goes on from a checkpoint on any number of ranks


def running_rank(folder: Path, strategy: Strategy, replicas: int) -> Any:
    """Five steps, with a checkpoint after the second; or the last three, if that checkpoint is there."""
    world = start(PLAIN)
    config = PLAIN.model_copy(update={"replicas": replicas})
    trained = frozenset(name for name, p in tiny_model(JOINT).named_parameters() if p.requires_grad)
    model = parallelize(tiny_model(JOINT), config, strategy, world, torch.float32, trained)
    optimizer = adam(model)
    checkpoints = Checkpoints(folder, ASYNCHRONOUS)
    if (checkpoint := checkpoints.latest()) is not None:
        assert checkpoint.names("model") == trained
        state = {"model": trainable_state(model, trained), "optimizer": optimizer_state(model, optimizer)}
        checkpoints.load(checkpoint, state)
    else:
        train(model, optimizer, world, micro=2, steps=2)
        state = {"model": trainable_state(model, trained), "optimizer": optimizer_state(model, optimizer)}
        checkpoints.save(2, state, {})
    train(model, optimizer, world, micro=2, steps=3)
    checkpoints.close()
    weights = whole_parameters(model)
    finish()
    return weights


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def uninterrupted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The checkpoints of a run on two ranks, and the weights with which it ended."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder / "checkpoints", run_ranks(folder, 2, running_rank, folder / "checkpoints", request.param, 1)[0]


@pytest.mark.parametrize(
    ("world", "strategy", "replicas"), [(1, "ddp", 1), (4, "ddp", 1), (4, "fsdp", 1), (4, "fsdp", 2)]
)
def test_training_goes_on_at_another_number_of_ranks_as_if_never_stopped(
    tmp_path: Path, uninterrupted: tuple[Path, Any], world: int, strategy: Strategy, replicas: int
) -> None:
    folder, expected = uninterrupted
    for weights in run_ranks(tmp_path, world, running_rank, folder, strategy, replicas):
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("uninterrupted", "strategy"), [("ddp", "ddp"), ("fsdp", "fsdp")], indirect=["uninterrupted"])
def test_training_goes_on_at_the_same_number_of_ranks_bit_for_bit(
    tmp_path: Path, uninterrupted: tuple[Path, Any], strategy: Strategy
) -> None:
    folder, expected = uninterrupted
    for weights in run_ranks(tmp_path, 2, running_rank, folder, strategy, 1):
        assert all(torch.equal(weights[name], value) for name, value in expected.items())


# --- no death leaves anything half-written that would be chosen


def saving_rank(folder: Path, moment: str, dying: int) -> None:
    """Save step 10; then rank ``dying`` is killed at ``moment`` of saving step 20."""
    world = start(PLAIN)
    checkpoints = Checkpoints(folder, ASYNCHRONOUS)
    checkpoints.save(10, tensors(10.0), {})
    checkpoints.wait()

    def die(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if world.rank == dying:
        module: Any = training.checkpoint
        if moment == "before the tensors":
            module.dcp_save = die
        elif moment == "in the middle of a file":
            # Of the ranks' files, after the first bytes have gone out.
            import torch.distributed.checkpoint.filesystem as filesystem

            save_tensor = filesystem.torch.save
            filesystem.torch.save = lambda tensor, stream: (save_tensor(tensor, stream), stream.flush(), die())
        elif moment == "after the tensors":
            module._describe = die
        elif moment == "before the record":
            module.write_atomic = die
        elif moment == "before the rename":
            module.move_folder = die
        elif moment == "after the rename":
            rename = module.move_folder
            module.move_folder = lambda *paths: (rename(*paths), die())
    checkpoints.save(20, tensors(20.0), {})
    checkpoints.wait()
    os._exit(3)  # The death of a peer is a save that failed; training would notice at its next collective.


@pytest.mark.parametrize(
    ("moment", "dying"),
    [
        ("before the tensors", 1),
        ("in the middle of a file", 0),
        ("in the middle of a file", 1),
        ("after the tensors", 1),
        ("before the record", 0),
        ("before the rename", 0),
        ("after the rename", 0),
    ],
)
def test_a_rank_killed_while_saving_leaves_the_last_whole_checkpoint_to_be_taken(
    tmp_path: Path, alone: None, moment: str, dying: int
) -> None:
    folder = tmp_path / "checkpoints"
    ranks = start_ranks(tmp_path / "ranks", 2, saving_rank, folder, moment, dying)
    codes = ranks.wait(60)
    assert codes[dying] == -signal.SIGKILL, ranks.outputs()
    value = loaded_value(Checkpoints(folder, ASYNCHRONOUS))
    assert value == (20.0 if moment == "after the rename" else 10.0)
    assert not [name for name in names(folder) if name.startswith(".")]


# --- a save that fails


def full_disk_rank(folder: Path, asynchronous: bool) -> list[str]:
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    world = start(PLAIN)
    checkpoints = Checkpoints(folder, ASYNCHRONOUS if asynchronous else SYNCHRONOUS)
    seen = []
    checkpoints.save(10, tensors(10.0), {})
    checkpoints.wait()
    if world.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    checkpoints.save(20, tensors(20.0), {})
    checkpoints.wait()
    try:
        checkpoints.close()
    except UserError as error:
        seen.append(str(error))
    seen.append(" ".join(names(folder)))
    if world.rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    checkpoints.save(30, tensors(30.0), {})
    checkpoints.close()
    finish()
    return seen


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_disk_that_is_full_for_one_rank_costs_one_checkpoint_and_no_training(
    tmp_path: Path, alone: None, asynchronous: bool
) -> None:
    folder = tmp_path / "checkpoints"
    ranks = start_ranks(tmp_path / "ranks", 2, full_disk_rank, folder, asynchronous)
    assert ranks.wait(60) == [0, 0], ranks.outputs()
    for rank in range(2):
        assert "checkpoint of step 20 could not be written: rank 1: OSError" in ranks.result(rank)[0]
    assert ranks.result(0)[1] == "step-00000010"
    assert "checkpoint of step 20 could not be written: rank 1" in ranks.output(0)
    assert "GiB free" in ranks.output(0)
    assert "checkpoint of step 20" not in ranks.output(1)
    assert loaded_value(Checkpoints(folder, ASYNCHRONOUS)) == 30.0


def test_the_folder_may_be_on_a_disk_that_is_really_full(tmp_path: Path, alone: None) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k tmpfs {disk} 2>/dev/null"):  # noqa: S605
        pytest.skip("only root can mount a small disk")
    try:
        checkpoints = Checkpoints(disk / "checkpoints", SYNCHRONOUS)
        checkpoints.save(10, tensors(10.0), {})
        checkpoints.save(20, tensors(20.0, size=100_000), {})
        with pytest.raises(
            UserError,
            match=r"step 20 could not be written: rank 0: OSError: \[Errno 28\] No space left.* has 0\.0 GiB free",
        ):
            checkpoints.close()
        assert loaded_value(checkpoints) == 10.0
    finally:
        os.system(f"umount {disk}")  # noqa: S605


# --- what is damaged afterwards


def two_checkpoints(folder: Path) -> Checkpoints:
    checkpoints = Checkpoints(folder, SYNCHRONOUS)
    for step in (10, 20):
        checkpoints.save(step, tensors(float(step)), {"said": "at " + str(step)})
    return checkpoints


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "checkpoint.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_newest_checkpoint_that_is_not_whole_is_passed_over_and_named(
    tmp_path: Path, alone: None, caplog: pytest.LogCaptureFixture, file: str, damage: str
) -> None:
    checkpoints = two_checkpoints(tmp_path)
    path = tmp_path / "step-00000020" / file
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1)
    assert loaded_value(checkpoints) == 10.0
    assert str(path) in caplog.text


def test_a_flipped_byte_is_refused_with_the_file_and_the_remedy(tmp_path: Path, alone: None) -> None:
    checkpoints = two_checkpoints(tmp_path)
    path = tmp_path / "step-00000020" / "__0_0.distcp"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"{path} is damaged.*delete {path.parent} and run"):
        loaded_value(checkpoints)
    shutil.rmtree(path.parent)
    assert loaded_value(checkpoints) == 10.0


def test_a_damaged_checkpoint_is_replaced_when_training_comes_to_its_step_again(tmp_path: Path, alone: None) -> None:
    checkpoints = two_checkpoints(tmp_path)
    (tmp_path / "step-00000020" / ".metadata").unlink()
    assert loaded_value(checkpoints) == 10.0
    checkpoints.save(20, tensors(21.0), {})
    assert loaded_value(checkpoints) == 21.0
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


# --- what is there, and for how long


def test_there_is_none_at_first(tmp_path: Path, alone: None) -> None:
    assert Checkpoints(tmp_path / "none", SYNCHRONOUS).latest() is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_a_checkpoint_says_what_the_run_said(tmp_path: Path, alone: None) -> None:
    two_checkpoints(tmp_path)
    checkpoint = read_checkpoint(tmp_path / "step-00000020")
    assert (checkpoint.step, checkpoint.facts) == (20, {"said": "at 20"})
    assert checkpoint.names("model") == {"a.weight", "b.bias"}
    assert checkpoint.names("optimizer") == frozenset()


def test_it_is_due_after_every_so_many_steps(tmp_path: Path, alone: None) -> None:
    checkpoints = Checkpoints(tmp_path, SYNCHRONOUS)
    assert [step for step in range(1, 31) if checkpoints.due(step)] == [10, 20, 30]


def test_the_newest_are_kept_and_the_one_that_the_run_began_with(tmp_path: Path, alone: None) -> None:
    checkpoints = two_checkpoints(tmp_path)
    assert loaded_value(checkpoints) == 20.0
    for step in (30, 40, 50, 60):
        checkpoints.save(step, tensors(float(step)), {})
    assert names(tmp_path) == ["step-00000020", "step-00000050", "step-00000060"]


def test_one_that_is_damaged_does_not_count_among_those_kept(tmp_path: Path, alone: None) -> None:
    checkpoints = two_checkpoints(tmp_path)
    (tmp_path / "step-00000020" / ".metadata").unlink()
    checkpoints.save(30, tensors(30.0), {})
    assert names(tmp_path) == ["step-00000010", "step-00000020", "step-00000030"]
    checkpoints.save(40, tensors(40.0), {})
    assert names(tmp_path) == ["step-00000030", "step-00000040"]


def test_saving_the_same_step_of_the_same_run_again_does_nothing(tmp_path: Path, alone: None) -> None:
    checkpoints = two_checkpoints(tmp_path)
    before = (tmp_path / "step-00000020").stat().st_ino
    checkpoints.save(20, tensors(20.0), {"said": "at 20"})
    checkpoints.close()
    assert (tmp_path / "step-00000020").stat().st_ino == before


# --- in the background


def test_training_goes_on_while_a_copy_is_written(tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    save = training.checkpoint.dcp_save
    monkeypatch.setattr(
        training.checkpoint, "dcp_save", lambda *args, **options: (go_on.wait(20), save(*args, **options))
    )
    checkpoints = Checkpoints(tmp_path, ASYNCHRONOUS)
    state = tensors(1.0)
    checkpoints.save(10, state, {})
    for tensor in state["model"].values():
        tensor.fill_(2.0)
    assert checkpoints.poll()
    assert not [name for name in names(tmp_path) if not name.startswith(".")]
    go_on.set()
    checkpoints.wait()
    assert not checkpoints.poll()
    assert loaded_value(checkpoints) == 1.0


def test_a_save_waits_for_the_one_before(tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most = 0, 0
    save = training.checkpoint.dcp_save

    def counted(*args: Any, **options: Any) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        save(*args, **options)
        at_once -= 1

    monkeypatch.setattr(training.checkpoint, "dcp_save", counted)
    checkpoints = Checkpoints(tmp_path, ASYNCHRONOUS)
    for step in (10, 20, 30):
        checkpoints.save(step, tensors(float(step)), {})
    checkpoints.close()
    assert most == 1
    assert names(tmp_path) == ["step-00000020", "step-00000030"]


class TrainingFailed(Exception):
    pass


def failing_rank(folder: Path) -> None:
    """Training fails while a checkpoint is being written."""
    start(PLAIN)
    save = training.checkpoint.dcp_save
    training.checkpoint.dcp_save = lambda *args, **options: (time.sleep(1), save(*args, **options))  # type: ignore[assignment]
    try:
        with Checkpoints(folder, ASYNCHRONOUS) as checkpoints:
            checkpoints.save(10, tensors(10.0), {})
            raise TrainingFailed
    except TrainingFailed:
        finish()


def test_a_run_that_fails_finishes_the_checkpoint_that_was_on_its_way(tmp_path: Path, alone: None) -> None:
    run_ranks(tmp_path / "ranks", 2, failing_rank, tmp_path / "checkpoints")
    assert loaded_value(Checkpoints(tmp_path / "checkpoints", ASYNCHRONOUS)) == 10.0


def test_the_facts_are_those_of_the_moment_of_the_save(
    tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    save = training.checkpoint.dcp_save
    monkeypatch.setattr(
        training.checkpoint, "dcp_save", lambda *args, **options: (go_on.wait(20), save(*args, **options))
    )
    facts = {"consumed": 10}
    with Checkpoints(tmp_path, ASYNCHRONOUS) as checkpoints:
        checkpoints.save(10, tensors(1.0), facts)
        facts["consumed"] = 20
        go_on.set()
    assert read_checkpoint(tmp_path / "step-00000010").facts == {"consumed": 10}


def test_an_old_checkpoint_that_cannot_be_deleted_fails_no_save(
    tmp_path: Path, alone: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = two_checkpoints(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(training.checkpoint, "_discard", refuse)
    checkpoints.save(30, tensors(30.0), {})
    checkpoints.close()
    assert "not yours" in caplog.text


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path, alone: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"rank 0 on .*{tmp_path / 'file'}"):
        Checkpoints(tmp_path / "file" / "checkpoints", SYNCHRONOUS)


# --- what does not fit


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_name(tmp_path: Path, alone: None) -> None:
    checkpoints = two_checkpoints(tmp_path)
    checkpoint = checkpoints.latest()
    assert checkpoint is not None
    with pytest.raises(UserError, match=r"step-00000020 lacks model\.c"):
        checkpoints.load(checkpoint, {"model": {"c": torch.zeros(2)}})


def test_a_tensor_of_another_shape_is_refused_by_name(tmp_path: Path, alone: None) -> None:
    checkpoints = two_checkpoints(tmp_path)
    checkpoint = checkpoints.latest()
    assert checkpoint is not None
    with pytest.raises(UserError, match=r"model\.b\.bias is \[4\], and \[5\] in this model"):
        checkpoints.load(checkpoint, {"model": {"b.bias": torch.zeros(5)}})


def test_what_is_not_a_tensor_is_refused_at_once(tmp_path: Path, alone: None) -> None:
    with pytest.raises(TypeError, match=r"optimizer\.lr is a float"):
        Checkpoints(tmp_path, SYNCHRONOUS).save(1, {"optimizer": {"lr": 1e-3}}, {})


def test_the_state_of_a_fresh_optimizer_is_that_before_any_step(alone: None) -> None:
    model = tiny_model(JOINT)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = adam(model)
    state = optimizer_state(model, optimizer)
    assert state.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(value.any() for values in state.values() for value in values.values())
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    assert optimizer.param_groups[0]["lr"] == 1e-2


def test_the_record_lists_every_file(tmp_path: Path, alone: None) -> None:
    two_checkpoints(tmp_path)
    record = json.loads((tmp_path / "step-00000020" / "checkpoint.json").read_text())
    assert sorted([*record["files"], "checkpoint.json"]) == names(tmp_path / "step-00000020")
