"""A stage of training: what it changes, and what a step without a finite gradient does."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from faceloom import config
from faceloom.errors import CheckFailed
from tests.training.datasets import add_latents, clip, write_base
from tests.training.test_train import CONFIG
from training.cogvideox_5b import SCHEDULER
from training.data import TrainingData
from training.latents import CHANNELS
from training.model import build_model
from training.parallel import World, finish, start
from training.prepared import Prepared, Recipe
from training.schedule import NoiseSchedule
from training.stage import Stage
from training.state import parameter_name
from training.train_config import TrainConfig

NAMES = ("motion", "identity", "joint")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two samples, encoded."""
    root = tmp_path_factory.mktemp("data") / "dataset"
    write_base(root, [(True, True)])
    return add_latents(root)


@pytest.fixture
def world() -> Iterator[World]:
    """A process group of this process only."""
    yield start(settings().parallel)
    finish()


def settings(**changes: Any) -> TrainConfig:
    """The paper's stages, with rates at which two steps are seen, on the tiny model."""
    stages = [stage.model_dump() | {"lr": 1e-2} for stage in config.load(TrainConfig, "skyreels_a1", ()).stages]
    batch = {"size": 2, "micro": 1}
    return TrainConfig.model_validate({**CONFIG, "stages": stages, "batch": batch, **changes})


def batches(dataset: Path, config: TrainConfig, number: int, count: int) -> list[Prepared]:
    recipe = Recipe(config.data, config.codec, config.reference, config.weight, config.stages[number].landmarks)
    with TrainingData([dataset], recipe).batches(1, 0, 1, 0) as ahead:
        return list(islice(ahead, count))


def stage(config: TrainConfig, number: int, world: World) -> Stage:
    guider = config.stages[number].landmarks == "rendered"
    model = build_model(config.model, config.codec, config.data.grid, guider=guider)
    if guider:  # as the motion stage leaves it: a model that is blind to landmarks gives their guider no gradient
        landmarks = model.transformer.patch_embed.proj.weight[:, CHANNELS : 2 * CHANNELS]
        torch.nn.init.normal_(landmarks.data, std=0.1, generator=torch.Generator().manual_seed(0))
    return Stage(config, number, model, NoiseSchedule(SCHEDULER, world.device), None, world)


def parameters(stage: Stage) -> dict[str, Tensor]:
    return {parameter_name(name): whole(p.detach()) for name, p in stage.model.named_parameters()}


def whole(tensor: Any) -> Tensor:
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone()


def expected(name: str, names: set[str]) -> set[str]:
    """What §3 and §5.1 of the paper train in each stage."""
    projector = {"face.0.weight", "face.0.bias", "face.2.weight", "face.2.bias"}
    if name == "motion":
        return {"transformer.patch_embed.proj.weight", "transformer.patch_embed.proj.bias"}
    if name == "identity":
        return projector
    blocks = {each for each in names if each.split(".")[:2] == ["transformer", "transformer_blocks"]}
    guider = {each for each in names if each.split(".")[0] == "guider"}
    assert blocks
    assert guider
    return blocks | guider | projector


@pytest.mark.parametrize("name", NAMES)
def test_each_stage_of_the_paper_changes_what_it_names_and_nothing_else(name: str, dataset: Path, world: World) -> None:
    number, paper = NAMES.index(name), settings()
    assert tuple(each.name for each in paper.stages) == NAMES
    trained = stage(paper, number, world)
    before = parameters(trained)
    source = iter(batches(dataset, paper, number, 4))
    for step in range(2):
        trained.step(source, step)
    after = parameters(trained)
    changed = {each for each in before if not torch.equal(before[each], after[each])}
    assert changed == expected(name, set(before))


def poisoned(batch: Prepared) -> Prepared:
    """As a sample would be whose latents hold a NaN."""
    return replace(batch, video=torch.full_like(batch.video, float("nan")))


@pytest.fixture
def broken(dataset: Path, world: World) -> tuple[Stage, list[Prepared]]:
    """A stage that has taken a step, and two micro-batches, the second of them poisoned."""
    plain = settings()
    trained = stage(plain, 0, world)
    good = batches(dataset, plain, 0, 2)
    trained.step(iter(good), 0)
    return trained, [good[0], poisoned(good[1])]


def flat(tree: Any, prefix: str = "") -> dict[str, Tensor]:
    if isinstance(tree, Tensor):
        return {prefix: whole(tree)}
    return {name: value for key, each in tree.items() for name, value in flat(each, f"{prefix}/{key}").items()}


def test_a_step_without_a_finite_gradient_changes_nothing(broken: tuple[Stage, list[Prepared]]) -> None:
    trained, bad = broken
    before, updates = flat(trained.state()) | parameters(trained), trained.ema_updates
    assert not torch.isfinite(torch.tensor(trained.step(iter(bad), 1).grad_norm))
    after = flat(trained.state()) | parameters(trained)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert trained.ema_updates == updates


def test_the_steps_after_it_are_as_if_it_had_not_been(
    broken: tuple[Stage, list[Prepared]], dataset: Path, world: World
) -> None:
    trained, bad = broken
    good = batches(dataset, settings(), 0, 2)
    trained.step(iter(bad), 1)
    trained.step(iter(good), 2)
    untouched = stage(settings(), 0, world)
    for step in range(2):
        untouched.step(iter(good), step)
    mine, theirs = flat(trained.state()), flat(untouched.state())
    assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []


def test_the_clip_whose_loss_is_not_finite_is_named(
    broken: tuple[Stage, list[Prepared]], caplog: pytest.LogCaptureFixture
) -> None:
    trained, bad = broken
    with caplog.at_level(logging.WARNING):
        trained.step(iter(bad), 1)
    (record,) = caplog.records
    assert bad[1].clip_ids[0] in record.getMessage()
    assert bad[0].clip_ids[0] not in record.getMessage()
    assert {each.clip_ids[0] for each in bad} == {clip(0).clip_id, clip(1).clip_id}


def test_ten_in_a_row_end_the_run(broken: tuple[Stage, list[Prepared]], dataset: Path) -> None:
    trained, bad = broken
    for step in range(9):
        trained.step(iter(bad), step)
    trained.step(iter(batches(dataset, settings(), 0, 2)), 9)
    for step in range(10, 19):
        trained.step(iter(bad), step)
    with pytest.raises(CheckFailed, match=r"10 steps in a row \(stage motion, step 19\)"):
        trained.step(iter(bad), 19)
