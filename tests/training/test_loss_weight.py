"""Eq. 8 over a clip's own latents, and the warning about a weight that weights nothing."""

from typing import Any

import numpy as np
import pytest
import torch

from landmarks.record import quantise
from shards.motion_weight import face_region, motion_weight
from training.data_config import WeightConfig
from training.loss_weight import InertWatch, sample_weight
from training.objective import velocity_loss


def fields(n_valid: int = 49) -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {
        "flow.npy": random.uniform(0, 12, (13, 60, 90)).astype(np.float16),
        "meta.json": {
            "n_valid": n_valid,
            "flow": {"p995": 10.0},
            "source_wh": [1440, 960],
            "crop_xywh": [0.0, 0.0, 1440.0, 960.0],
        },
    }


def test_a_clip_without_padding_has_the_weight_of_eq_7() -> None:
    sample = fields()
    found = sample_weight(sample, WeightConfig(), "contiguous49")
    wanted = motion_weight(sample["flow.npy"], 10.0)
    np.testing.assert_array_equal(found.weight, wanted)
    assert found.mean == pytest.approx(wanted.mean())
    assert found.above_1 == pytest.approx((sample["flow.npy"] > 5).mean())


def test_the_reference_of_the_other_layout_has_no_motion_to_be_weighted_by() -> None:
    plain, led = (sample_weight(fields(), WeightConfig(), layout).weight for layout in ("contiguous49", "ref1+48"))
    assert plain[0].max() == 1.5
    assert (led[0] == 1).all()
    np.testing.assert_array_equal(led[1:], plain[1:])


@pytest.mark.parametrize("n_valid", [49, 46, 45, 34])
def test_the_loss_is_the_mean_over_the_valid_elements(n_valid: int) -> None:
    sample = fields(n_valid)
    random = np.random.default_rng(1)
    prediction, target = random.standard_normal((2, 13, 16, 60, 90))
    weight = sample_weight(sample, WeightConfig(variant="delta", delta=0.8), "contiguous49").weight
    loss = velocity_loss(
        torch.from_numpy(prediction)[None], torch.from_numpy(target)[None], torch.from_numpy(weight)[None]
    )

    shares = [1.0] + [np.mean([4 * k - 3 + i < n_valid for i in range(4)]) for k in range(1, 13)]
    total = elements = 0.0
    for k, share in enumerate(shares):
        w = np.clip(np.minimum(sample["flow.npy"][k].astype(float) / 10, 1) + 0.8, 1, 1.8)
        total += share * (w * (prediction[k] - target[k]) ** 2).sum()
        elements += share * 16 * 60 * 90
    assert float(loss[0]) == pytest.approx(total / elements, rel=1e-5)


def test_padding_counts_for_nothing() -> None:
    found = sample_weight(fields(45), WeightConfig(), "contiguous49")
    assert not found.weight[12].any()
    assert found.weight[:12].min() > 1


def test_the_variant_face_looks_at_the_landmarks_in_the_crop() -> None:
    sample = fields()
    points = np.random.default_rng(0).uniform(0.4, 0.6, (49, 478, 3)).astype(np.float32)
    sample["landmarks.u16.npy"] = quantise(points)
    found = sample_weight(sample, WeightConfig(variant="face"), "contiguous49").weight
    face = face_region(points[..., :2] * np.array([720, 480], np.float32))
    assert (found[face == 0] == 1).all()
    inside = face == 1
    wanted = motion_weight(sample["flow.npy"], 10.0, "delta")
    assert inside.sum() > 1000
    assert found[inside] == pytest.approx(wanted[inside], abs=1e-3)


def test_an_inert_weight_is_said_once_and_with_a_remedy(caplog: pytest.LogCaptureFixture) -> None:
    watch = InertWatch(WeightConfig(variant="literal"))
    for _ in range(100):
        watch.see(8, 0.0)
    assert len(caplog.messages) == 1
    assert "no cell of 200 samples" in caplog.text
    assert "weight.variant is literal: try norm or delta" in caplog.text


def test_few_cells_above_1_are_nothing_to_speak_of(caplog: pytest.LogCaptureFixture) -> None:
    watch = InertWatch(WeightConfig())
    for share in (0.0, 0.0, 0.001, *[0.0] * 500):
        watch.see(1, share)
    assert not caplog.messages
