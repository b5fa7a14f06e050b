import io
from typing import Any

import pytest
from rich.console import Console

from faceloom.config import load
from faceloom.errors import UserError
from training.plan_display import plan_text
from training.train_config import StageConfig, TrainConfig
from training.train_plan import TrainPlan, plan

MOTION = StageConfig(name="motion", steps=2000, lr=1e-5, trainable=(r"transformer\.patch_embed\.proj\.",))
JOINT = StageConfig(
    name="joint",
    steps=1000,
    lr=1e-6,
    trainable=(r"guider\.", r"transformer\.transformer_blocks\.", r"face\."),
    landmarks="rendered",
    strategy="fsdp",
)


def shown(made: TrainPlan) -> str:
    screen = io.StringIO()
    Console(file=screen, width=400).print(plan_text(made))
    return screen.getvalue()


@pytest.fixture(scope="module")
def paper() -> TrainPlan:
    return plan(load(TrainConfig, "skyreels_a1"), gpus=32, kind="A800")


def small(stage: StageConfig = MOTION, **changes: Any) -> TrainConfig:
    sections: dict[str, Any] = {
        "model": {"init": "scratch", "scratch": {"num_layers": 2}},
        "codec": {"codec": "pixels"},
        "data": {"shrink": 15},
        "batch": {"size": 8, "micro": 1},
        "stages": [stage],
    }
    return TrainConfig(**sections | changes)


def test_the_papers_stages_train_the_patch_embedding_then_the_projector_then_nearly_all(paper: TrainPlan) -> None:
    motion, identity, joint = paper.stages
    assert motion.parameters == identity.parameters == 5_588_820_928
    assert motion.trained == 592_896  # kernel and bias: 48·2·2·3072 + 3072
    assert identity.trained == 18_144_640
    assert joint.parameters == 5_588_820_928 + 92_215_456
    assert {stage.tokens for stage in paper.stages} == {18_279}


def test_hours_follow_from_operations_gpus_and_utilisation(paper: TrainPlan) -> None:
    motion, _, joint = paper.stages
    # 2.5 forwards of 3.46e14 with frozen weights, and one more for activation checkpointing.
    assert motion.sample_flops == pytest.approx(2.5 * 3.46e14, rel=0.01)
    assert motion.recomputed_flops == pytest.approx(3.46e14, rel=0.01)
    seconds = 512 * (3.5 * 3.46e14) / (32 * 312e12 * 0.4)
    assert motion.step_s == pytest.approx(seconds, rel=0.01)
    assert motion.hours == pytest.approx(2000 * seconds / 3600, rel=0.01)
    # The guider's 1.49e14 as well: forward, again, and twice as much backward.
    assert joint.step_s == pytest.approx(512 * 4 * (3.46e14 + 1.49e14) / (32 * 312e12 * 0.4), rel=0.01)
    assert paper.days == pytest.approx(sum(stage.hours or 0 for stage in paper.stages) / 24)


def test_without_checkpointing_and_recomputation_it_is_the_133_seconds_of_three_forwards() -> None:
    every = MOTION.model_copy(update={"trainable": (".*",), "strategy": "fsdp"})
    config = load(TrainConfig, "skyreels_a1", ["parallel.activation_checkpointing=false"])
    (stage,) = plan(config.model_copy(update={"stages": (every,)}), gpus=32, kind="A800").stages
    assert stage.step_s == pytest.approx(133, abs=1)


def test_frozen_stages_hold_the_model_in_bfloat16_and_the_joint_one_spreads_it(paper: TrainPlan) -> None:
    motion, _, joint = paper.stages
    assert motion.memory["weights"] == pytest.approx(11.2e9, rel=0.01)
    assert joint.memory["weights"] == pytest.approx(4 * 5.681e9 / 32, rel=0.01)
    assert joint.memory["optimizer"] == pytest.approx(8 * 5.663e9 / 32, rel=0.01)
    for stage in paper.stages:
        assert stage.memory_total < 80e9
    assert motion.memory_otherwise < 80e9 < joint.memory_otherwise


def test_what_an_earlier_stage_trained_stays_in_float32() -> None:
    identity = MOTION.model_copy(update={"name": "identity", "trainable": (r"face\.",)})
    alone = plan(small(stages=[identity])).stages[0]
    after = plan(small(stages=[MOTION, identity])).stages[1]
    assert after.memory["weights"] - alone.memory["weights"] == 2 * plan(small()).stages[0].trained


def test_a_stage_after_the_guiders_holds_it_without_going_through_it() -> None:
    joint, after = plan(small(stages=[JOINT, MOTION])).stages
    assert after.parameters == joint.parameters > plan(small()).stages[0].parameters
    assert after.sample_flops == plan(small()).stages[0].sample_flops


def test_a_reference_that_is_encoded_while_training_needs_its_encoder() -> None:
    config = load(TrainConfig, "skyreels_a1", ["reference.noise=true"])
    (stage,) = plan(config.model_copy(update={"stages": (MOTION,)}), gpus=32).stages
    assert stage.memory["reference encoder"] == 2 * 92_215_456


def test_the_stand_in_for_small_machines_has_a_plan_too() -> None:
    made = plan(small(JOINT), gpus=2, kind="A800")
    (stage,) = made.stages
    assert stage.tokens == 13 * 2 * 3 + 729
    assert 0 < stage.trained < stage.parameters < 10e6


def test_an_unknown_gpu_and_float32_have_no_hours() -> None:
    assert plan(small(), kind="Voodoo 2").days is None
    assert plan(small(dtype="fp32")).days is None
    assert "no peak is known for bf16 on Voodoo 2" in shown(plan(small(), kind="Voodoo 2"))


def test_a_batch_that_the_gpus_cannot_share_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch\.size 8 is no multiple of batch\.micro 1 × 3 GPUs"):
        plan(small(), gpus=3)
    with pytest.raises(UserError, match=r"parallel\.replicas 3 does not divide 4 GPUs"):
        plan(small(parallel={"replicas": 3}), gpus=4)


def test_the_table_has_a_column_a_stage_and_says_how_estimates_were_made(paper: TrainPlan) -> None:
    said = shown(paper)
    for text in ("motion", "identity", "joint", "5.589 B", "0.593 M", "18.145 M", "18279", "DDP", "FSDP"):
        assert text in said
    assert "512 samples a step: 32 GPUs × 1 at a time × 16 times" in said
    assert f"{paper.days:.1f} days on 32 × A800, at 40% of their 312 TFLOP/s: a guess" in said
    assert "meta device" in said
