"""Head shapes of known difference, seen under poses and expressions that change them a little, as MediaPipe's do."""

import numpy as np
import pytest

from curation.identity_check import IdentityCheckConfig, identity_shift_cm
from landmarks.record import LandmarkRecord

LIMIT_CM = IdentityCheckConfig().max_shift_cm
RIGID = np.arange(0, 99, 3)


def head(seed: int) -> np.ndarray:
    """``[478, 3]`` cm; two heads differ by 0.6 cm a point in the mean."""
    return np.random.default_rng(seed).normal(0, 0.6 / 2.257, (478, 3)) + np.linspace(-8, 8, 478)[:, None]


def seen(
    heads: list[np.ndarray], yaw_deg: np.ndarray, smile: np.ndarray, distance_cm: np.ndarray | None = None
) -> tuple[np.ndarray, LandmarkRecord]:
    """Metric points and record of a clip that shows ``heads[T]``, 50 cm away unless said otherwise.

    Every degree of yaw moves the points by 0.02 cm, and a smile by 0.3, in directions of their own.
    """
    frames = len(heads)
    rng = np.random.default_rng(9)
    by_yaw, by_smile = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 478, 3)))
    metric = np.stack(heads) + 0.02 * yaw_deg[:, None, None] * by_yaw + 0.3 * smile[:, None, None] * by_smile
    metric += rng.normal(0, 0.08, metric.shape)
    pose = np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1))
    a = np.radians(yaw_deg)
    pose[:, 0, 0], pose[:, 0, 2], pose[:, 2, 0], pose[:, 2, 2] = np.cos(a), np.sin(a), -np.sin(a), np.cos(a)
    pose[:, 2, 3] = -50 if distance_cm is None else -distance_cm
    blendshapes = np.zeros((frames, 52), np.float32)
    blendshapes[:, 44:46] = smile[:, None]
    record = LandmarkRecord(
        np.full((frames, 478, 3), 0.5, np.float32), blendshapes, pose, np.ones(frames, bool), 640, 480
    )
    return metric.astype(np.float32), record


SWAY = 15 * np.sin(np.arange(49) / 5)
CALM = np.zeros(49)


def test_one_head_does_not_shift_and_two_do() -> None:
    one, two = head(1), head(2)
    assert identity_shift_cm(*seen([one] * 49, SWAY, CALM), RIGID) < 0.2
    assert identity_shift_cm(*seen([one] * 24 + [two] * 25, SWAY, CALM), RIGID) == pytest.approx(0.6, abs=0.12)


def test_a_turn_of_the_head_is_not_taken_for_another_head() -> None:
    """Half the clip to one side and half to the other: medians differ by 0.8 cm, like poses by next to nothing."""
    turning = np.concatenate([np.full(20, -20.0), np.linspace(-20, 20, 10), np.full(19, 20.0)])
    turning[[5, 6, 7]] = 19.0  # a glance
    metric, record = seen([head(1)] * 49, turning, CALM)
    halves = np.median(metric[:24][:, RIGID], axis=0) - np.median(metric[25:][:, RIGID], axis=0)
    assert np.linalg.norm(halves, axis=1).mean() > 2 * LIMIT_CM
    assert identity_shift_cm(metric, record, RIGID) < LIMIT_CM


def test_an_expression_is_not_taken_for_another_head() -> None:
    smile = np.concatenate([np.zeros(22), np.ones(27)])
    metric, record = seen([head(1)] * 49, SWAY, 0.5 * smile)
    assert identity_shift_cm(metric, record, RIGID) < LIMIT_CM


def test_halves_that_show_the_head_too_differently_say_nothing() -> None:
    late = np.arange(49) >= 25  # half of 49 frames are 25
    one, other = [head(1)] * 25, [head(2)] * 24
    for yaw, smile, distance in (
        (np.where(late, 20.0, 0.0), CALM, None),
        (CALM, np.where(late, 1.0, 0.0), None),
        (CALM, CALM, np.where(late, 40.0, 50.0)),
    ):
        assert np.isnan(identity_shift_cm(*seen(one + other, yaw, smile, distance), RIGID))
    assert identity_shift_cm(*seen(one + other, CALM, CALM), RIGID) > LIMIT_CM


def test_frames_without_the_face_play_no_part() -> None:
    metric, record = seen([head(1)] * 49, SWAY, CALM)
    expected = identity_shift_cm(metric[:40], record.frames(slice(0, 40)), RIGID)
    found = np.arange(49) < 40
    points, blendshapes, pose = (a.copy() for a in (record.points, record.blendshapes, record.pose))
    for values in (points, blendshapes, pose, metric):
        values[~found] = np.nan
    lost = LandmarkRecord(points, blendshapes, pose, found, 640, 480)
    assert identity_shift_cm(metric, lost, RIGID) == expected


def test_of_less_than_a_second_a_half_nothing_is_said() -> None:
    metric, record = seen([head(1)] * 49, SWAY, CALM)
    assert np.isnan(identity_shift_cm(metric[:23], record.frames(slice(0, 23)), RIGID))
    assert np.isfinite(identity_shift_cm(metric[:24], record.frames(slice(0, 24)), RIGID))


def test_a_long_shot_is_judged_by_frames_spread_over_all_of_it() -> None:
    heads = [head(1)] * 1000 + [head(2)] * 1000
    sway = np.tile(SWAY, 41)[:2000]
    assert identity_shift_cm(*seen(heads, sway, np.zeros(2000)), RIGID) == pytest.approx(0.6, abs=0.12)
