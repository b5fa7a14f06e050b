from dataclasses import replace

import numpy as np
import pytest

from curation.continuity import ContinuityConfig, leaps
from landmarks.record import LandmarkRecord

CONFIG = ContinuityConfig()
RIGID = np.arange(33)
AT = 20


def turn(yaw_deg: float) -> np.ndarray:
    pose = np.eye(4, dtype=np.float32)
    a = np.radians(yaw_deg)
    pose[0, 0], pose[0, 2], pose[2, 0], pose[2, 2] = np.cos(a), np.sin(a), -np.sin(a), np.cos(a)
    return pose


def calm(frames: int = 40) -> tuple[LandmarkRecord, np.ndarray]:
    """A head that turns a degree a frame, with an expression that moves by 0.6 to 0.8 a frame, and its metric points."""
    rng = np.random.default_rng(3)
    blendshapes = np.full((frames, 52), 0.3, np.float32)
    blendshapes[1::2, 1:8] += rng.uniform(0.08, 0.12, (frames // 2, 7)).astype(np.float32)
    record = LandmarkRecord(
        np.full((frames, 478, 3), 0.5, np.float32),
        blendshapes,
        np.stack([turn(i) for i in range(frames)]),
        np.ones(frames, bool),
        640,
        480,
    )
    metric = rng.normal(0, 5, (1, 478, 3)) + rng.normal(0, 0.05, (frames, 478, 3))
    return record, metric.astype(np.float32)


def test_a_calm_face_does_not_leap() -> None:
    assert not leaps(*calm(), RIGID, CONFIG).any()


@pytest.mark.parametrize(("step_deg", "leapt"), [(24.0, []), (26.0, [AT])])
def test_a_pose_leaps_from_25_degrees_on(step_deg: float, leapt: list[int]) -> None:
    record, metric = calm()
    pose = np.stack([turn(i if i < AT else AT - 1 + step_deg) for i in range(40)])
    assert np.flatnonzero(leaps(replace(record, pose=pose), metric, RIGID, CONFIG)).tolist() == leapt


@pytest.mark.parametrize(("sum_of_changes", "leapt"), [(7.4, []), (8.6, [AT])])
def test_an_expression_leaps_when_it_changes_more_than_any_that_was_seen(
    sum_of_changes: float, leapt: list[int]
) -> None:
    record, metric = calm()
    blendshapes = np.full((40, 52), 0.3, np.float32)
    blendshapes[1::2, 1] += 0.1
    blendshapes[AT:, 2:22] += sum_of_changes / 20
    changed = replace(record, blendshapes=blendshapes)
    assert np.flatnonzero(leaps(changed, metric, RIGID, CONFIG)).tolist() == leapt


def test_a_large_step_is_no_leap_in_a_clip_full_of_them() -> None:
    record, metric = calm()
    blendshapes = np.full((40, 52), 0.1, np.float32)
    blendshapes[1::2, 1:22] += 0.42  # 8.8 in every frame
    assert not leaps(replace(record, blendshapes=blendshapes), metric, RIGID, CONFIG).any()


@pytest.mark.parametrize(("distance_cm", "leapt"), [(0.38, []), (0.5, [AT])])
def test_a_head_leaps_when_its_rigid_points_do(distance_cm: float, leapt: list[int]) -> None:
    record, _ = calm()
    metric = np.zeros((40, 478, 3), np.float32)
    metric[AT:, :33, 0] = distance_cm
    metric[10:, 33:, 1] = 9.0  # of the others, which expressions move, nothing is asked
    assert np.flatnonzero(leaps(record, metric, RIGID, CONFIG)).tolist() == leapt


def test_nothing_is_said_of_frames_without_a_face_and_of_the_first() -> None:
    record, metric = calm()
    found = np.ones(40, bool)
    found[AT] = False
    points, blendshapes, pose = (a.copy() for a in (record.points, record.blendshapes, record.pose))
    for values in (points, blendshapes, pose, metric):
        values[AT] = np.nan
    metric[AT + 1 :, :33] += 3  # on the other side of the gap, where the track itself decides
    lost = LandmarkRecord(points, blendshapes, pose, found, 640, 480)
    assert not leaps(lost, metric, RIGID, CONFIG).any()
    nobody = LandmarkRecord(
        *(np.full_like(a, np.nan) for a in (points, blendshapes, pose)), np.zeros(40, bool), 640, 480
    )
    assert not leaps(nobody, np.full_like(metric, np.nan), RIGID, CONFIG).any()
    assert leaps(record.frames(slice(0, 1)), metric[:1], RIGID, CONFIG).tolist() == [False]
