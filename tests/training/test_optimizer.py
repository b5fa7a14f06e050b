import pytest

from training.optimizer import learning_rate
from training.train_config import StageConfig


def rates(steps: int = 10, **of: float) -> list[float]:
    stage = StageConfig(name="any", steps=steps, lr=2.0, trainable=("x",), **of)
    return [learning_rate(stage, step) for step in range(steps)]


def test_a_rate_is_constant_unless_a_stage_says_otherwise():
    assert rates() == [2.0] * 10


def test_the_rate_rises_over_the_warm_up_and_is_full_in_the_step_after_it():
    assert rates(warmup_steps=3) == [0.5, 1.0, 1.5] + [2.0] * 7


def test_the_rate_falls_over_the_share_of_last_steps_and_no_step_is_wasted_at_zero():
    assert rates(decay_share=0.4) == pytest.approx([2.0] * 7 + [1.5, 1.0, 0.5])


def test_a_decay_over_all_steps_begins_with_the_full_rate():
    assert rates(decay_share=1.0) == pytest.approx([0.2 * left for left in range(10, 0, -1)])


def test_the_rate_is_the_lower_one_where_warm_up_and_decay_overlap():
    assert rates(4, warmup_steps=3, decay_share=1.0) == pytest.approx([0.5, 1.0, 1.0, 0.5])
