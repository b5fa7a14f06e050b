"""Eq. 7 in its variants, and which latents are a clip's own."""

import numpy as np
import pytest

from shards.motion_weight import DELTAS, Variant, face_region, motion_weight, valid_shares


def field(*values: float) -> np.ndarray:
    """A flow field of one row of cells in one latent frame, px."""
    return np.array([values], np.float16)[None]


def weights(flow: np.ndarray, variant: Variant, p995: float = 10.0, **more: object) -> list[float]:
    result = motion_weight(flow, p995, variant, **more)
    assert (result.dtype, result.shape) == (np.float32, flow.shape)
    return result.ravel().tolist()


def test_eq_7_taken_literally_weights_nothing() -> None:
    assert set(weights(field(0, 1, 60, 127), "literal")) == {1.0}
    assert weights(field(255), "literal") == [1.5]


def test_the_normalised_weight_lifts_the_faster_half_of_the_range() -> None:
    assert weights(field(0, 4, 5, 7.5, 10, 40), "norm") == pytest.approx([1, 1, 1, 1.25, 1.5, 1.5])


@pytest.mark.parametrize("variant", ["norm", "delta"])
def test_the_noise_of_a_still_clip_is_not_blown_up(variant: Variant) -> None:
    assert max(weights(field(0.05, 0.03), variant, p995=0.06)) <= 1.05


def test_the_variant_delta_counts_every_motion() -> None:
    assert weights(field(0, 4, 5, 7.5, 10, 40), "delta") == pytest.approx([1, 1.4, 1.5, 1.75, 2, 2])


def test_norm_frame_measures_each_latent_by_its_own_maximum() -> None:
    flow = np.concatenate([field(0, 4, 8), field(0, 0.03, 0.04), field(0, 0, 0)])
    found = motion_weight(flow, 10.0, "norm_frame")
    assert found == pytest.approx(np.array([[[1, 1, 1.5]], [[1, 1.25, 1.5]], [[1, 1, 1]]]), abs=1e-3)


def test_what_exceeds_1_counts_by_the_share_of_face_in_its_cell() -> None:
    face = np.array([[[0, 0.5, 1, 1]]], np.float32)
    assert weights(field(10, 10, 10, 0), "face", face=face) == pytest.approx([1, 1.5, 2, 1])
    with pytest.raises(ValueError, match="face's region"):
        motion_weight(field(1), 1.0, "face")


@pytest.mark.parametrize("variant", DELTAS)
@pytest.mark.parametrize("delta", [None, 0.2, 1.0])
def test_where_nothing_moves_the_weight_is_1_and_nowhere_above_1_plus_delta(
    variant: Variant, delta: float | None
) -> None:
    flow = np.concatenate([np.zeros(50), np.geomspace(1e-4, 400, 50)]).astype(np.float16).reshape(1, 10, 10)
    found = motion_weight(flow, 20.0, variant, delta, face=np.ones((1, 10, 10), np.float32)).ravel()
    assert (found[:50] == 1).all()
    assert found.min() == 1
    assert found.max() <= 1 + (delta or DELTAS[variant]) + 1e-6


def landmarks(x0: float, y0: float, x1: float, y1: float, frames: int = 49) -> np.ndarray:
    """478 points that fill a rectangle of the frame, px."""
    random = np.random.default_rng(0)
    points = random.uniform((x0, y0), (x1, y1), (478, 2))
    points[:4] = [(x0, y0), (x1, y0), (x0, y1), (x1, y1)]
    return np.repeat(points[None], frames, axis=0).astype(np.float32)


def test_the_face_is_the_hull_of_its_landmarks_grown_about_its_middle() -> None:
    region = face_region(landmarks(320, 160, 400, 260))  # grown by 1.3: 308 … 412, 145 … 275
    assert (region.shape, region.dtype) == ((13, 60, 90), np.float32)
    inside = region[0, 19:34, 39:51]
    assert (inside == 1).all()
    assert region[0].sum() * 64 == pytest.approx(104 * 130, rel=0.02)
    assert not region[0, :18].any()
    assert not region[0, :, :38].any()


def test_a_latent_has_the_mean_of_its_frames_faces() -> None:
    points = landmarks(0, 0, 200, 200)
    points[1:4] = landmarks(400, 200, 600, 400, 3)
    points[5] = np.nan
    region = face_region(points)
    assert region[:3, 5, 5].tolist() == [1, 0.25, 0.75]
    assert region[:3, 40, 60].tolist() == [0, 0.75, 0]


@pytest.mark.parametrize(
    ("n_valid", "shares"),
    [
        (49, [1] * 13),
        (48, [1] * 12 + [0.75]),
        (46, [1] * 12 + [0.25]),
        (45, [1] * 12 + [0]),
        (33, [1] * 9 + [0] * 4),
        (1, [1] + [0] * 12),
    ],
)
def test_a_latent_is_valid_by_the_share_of_its_frames_that_are_the_clips_own(n_valid: int, shares: list[float]) -> None:
    assert valid_shares(n_valid).tolist() == shares


@pytest.mark.parametrize("n_valid", [0, 50])
def test_another_number_of_frames_is_refused(n_valid: int) -> None:
    with pytest.raises(ValueError, match="n_valid"):
        valid_shares(n_valid)
