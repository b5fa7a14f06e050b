"""Measures of motion against what can be said of made-up faces by hand."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from evaluation.motion import (
    best_offset,
    expression_distance,
    lip_gap_correlation,
    pose_distance_deg,
    since,
)


def shapes(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((frames, 51)).astype(np.float32)


def poses(yaw: object, pitch: object = 0.0, roll: object = 0.0) -> np.ndarray:
    """R = Ry · Rx · Rz of angles in degrees."""
    angles = np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(a, float)) for a in (yaw, pitch, roll))), -1)
    pose = np.tile(np.eye(4, dtype=np.float32), (len(angles), 1, 1))
    pose[:, 2, 3] = -50
    pose[:, :3, :3] = Rotation.from_euler("YXZ", angles, degrees=True).as_matrix()
    return pose


def test_expression_is_the_mean_over_blendshapes_and_grows_with_what_is_exaggerated():
    face = shapes(5)
    other = face.copy()
    other[2, 7] += 0.51
    assert expression_distance(face, other) == pytest.approx([0, 0, 0.01, 0, 0])
    exaggerated = [expression_distance(face, face * scale).mean() for scale in (1.0, 1.1, 1.3, 1.6)]
    assert exaggerated[0] == 0
    assert (np.diff(exaggerated) > 0).all()


def test_a_frame_without_a_face_is_not_compared():
    face, other = shapes(3), shapes(3)
    other[1] = np.nan
    assert np.isfinite(expression_distance(face, other)).tolist() == [True, False, True]


def test_pose_has_one_angle_an_axis_and_that_of_the_whole_turn():
    distance = pose_distance_deg(poses([0, 10, 0], [0, 0, -5], [0, 0, 0]), poses([0, 4, 0], [0, 0, 5], [0, 0, 20]))
    assert distance[0] == pytest.approx([0, 0, 0, 0], abs=1e-4)
    assert distance[1] == pytest.approx([6, 0, 0, 6], abs=1e-4)
    expected = np.degrees(
        (
            Rotation.from_matrix(poses(0, -5)[0, :3, :3]).inv() * Rotation.from_euler("YXZ", [0, 5, 20], degrees=True)
        ).magnitude()
    )
    assert distance[2] == pytest.approx([0, 10, 20, expected], abs=1e-3)


def test_angles_on_either_side_of_the_half_turn_are_near_each_other():
    assert pose_distance_deg(poses(0, 0, 179), poses(0, 0, -179))[0, 2] == pytest.approx(2, abs=1e-3)


def test_turns_since_a_frame_are_the_same_for_a_head_that_is_held_otherwise():
    motion = [0, 5, -12, 30]
    straight = poses(motion)
    tilted = poses(motion)
    tilted[:, :3, :3] = poses(0, 15, 8)[0, :3, :3] @ straight[:, :3, :3]
    assert pose_distance_deg(straight, tilted)[:, 3].min() > 10
    assert pose_distance_deg(since(straight, 0), since(tilted, 0)) == pytest.approx(np.zeros((4, 4)), abs=1e-3)


def test_a_head_that_is_moved_aside_and_shows_the_same_side_has_not_turned():
    moved = poses([0, 0])
    angle = np.arctan2(20, 50)
    moved[1, 0, 3], moved[1, :3, :3] = 20, Rotation.from_euler("Y", -angle).as_matrix()
    assert pose_distance_deg(since(moved, 0), since(poses([0, 0]), 0))[1, 3] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("late", [-2, -1, 0, 1, 2])
def test_a_result_that_lags_by_up_to_two_frames_is_found_out(late: int):
    driver = shapes(20)
    result = np.roll(driver, late, axis=0)[4:-4]
    assert best_offset(result, driver[4:], 2) == -late


def test_of_offsets_that_are_equally_good_the_smallest_is_taken():
    still = np.tile(shapes(1), (10, 1))
    assert best_offset(still, still, 2) == 0
    assert best_offset(np.full((3, 51), np.nan), still, 2) == 0


def test_the_correlation_is_that_of_pearson_and_falls_with_noise_and_with_delay():
    rng = np.random.default_rng(1)
    lips = 0.7 + np.sin(np.arange(60) / 4)
    assert lip_gap_correlation(lips * 0.4 + 1, lips, "driver").value == pytest.approx(1)
    assert lip_gap_correlation(-lips, lips, "driver").value == pytest.approx(-1)
    noise = rng.normal(size=60)
    for values in (
        [lip_gap_correlation(lips + s * noise, lips, "driver").value for s in (0, 0.2, 0.5, 1)],
        [lip_gap_correlation(np.roll(lips, s), lips, "driver").value for s in (0, 1, 2, 4)],
    ):
        assert (np.diff(np.array(values, float)) < 0).all()


def test_lips_that_do_not_move_follow_nothing_and_are_not_rewarded_by_being_left_out():
    lips = np.sin(np.arange(20) / 3)
    measure = lip_gap_correlation(np.full(20, 0.5), lips, "driver")
    assert measure.value == 0
    assert "do not move" in measure.reason


def test_nothing_can_be_said_of_following_lips_that_do_not_move_or_are_not_seen():
    lips = np.sin(np.arange(20) / 3)
    still = lip_gap_correlation(lips, np.full(20, 0.5), "driver")
    assert still.value is None
    assert "driver" in still.reason
    unseen = lip_gap_correlation(np.where(np.arange(20) < 7, lips, np.nan), lips, "driver")
    assert unseen.value is None
    assert (unseen.frames, unseen.total) == (7, 20)
