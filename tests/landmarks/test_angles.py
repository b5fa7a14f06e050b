import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from landmarks.angles import angular_speed_deg_s, geodesic_range_deg, head_pose_deg, nearest_rotation
from tests.landmarks.conftest import Detections, Landmarker


def poses(rotations: Rotation) -> np.ndarray:
    pose = np.tile(np.eye(4, dtype=np.float32), (len(rotations), 1, 1))
    pose[:, :3, :3] = rotations.as_matrix()
    pose[:, :3, 3] = [1, 2, -50]
    return pose


@given(st.floats(-179, 179), st.floats(-85, 85), st.floats(-179, 179))
def test_angles_are_those_scipy_composes_the_rotation_from(yaw, pitch, roll):
    composed = Rotation.from_euler("YXZ", [[yaw, pitch, roll]], degrees=True)
    np.testing.assert_allclose(head_pose_deg(poses(composed)), [[yaw, pitch, roll]], atol=1e-3)


@pytest.mark.parametrize(
    ("axis", "nose_moves_to"),
    [(0, (1, 0)), (1, (0, -1))],
    ids=["yaw turns the nose to the image's right", "pitch looks down"],
)
def test_sign_of(axis, nose_moves_to):
    R = Rotation.from_euler("XYZ"[1 - axis], 20, degrees=True)
    assert head_pose_deg(poses(Rotation.concatenate([R])))[0, axis] == pytest.approx(20, abs=1e-4)
    nose = R.apply([0, 0, 1])
    assert np.dot(nose[:2], nose_moves_to) == pytest.approx(math.sin(math.radians(20)))


def test_roll_is_counter_clockwise_in_the_image():
    R = Rotation.from_euler("Z", 20, degrees=True)
    assert head_pose_deg(poses(Rotation.concatenate([R])))[0, 2] == pytest.approx(20, abs=1e-4)
    right_ear = R.apply([1, 0, 0])
    assert right_ear[1] > 0  # y is up


def test_a_scaled_matrix_is_refused():
    pose = poses(Rotation.identity(3))
    pose[1, :3, :3] *= 1.01
    with pytest.raises(ValueError, match="frame 1"):
        head_pose_deg(pose)


def test_a_frame_without_a_face_is_nan_and_does_not_disturb_the_range():
    pose = poses(Rotation.from_euler("Y", np.linspace(-10, 10, 21)[:, None], degrees=True))
    complete = geodesic_range_deg(pose)
    pose = np.insert(pose, 5, np.nan, axis=0)
    assert np.isnan(head_pose_deg(pose)[5]).all()
    assert geodesic_range_deg(pose) == complete
    assert np.isnan(angular_speed_deg_s(pose, 12)).nonzero()[0].tolist() == [4, 5]
    assert math.isnan(geodesic_range_deg(np.full((3, 4, 4), np.nan)))


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [1, 1, 1]])
def test_geodesic_range_is_the_swing_whatever_its_axis(axis):
    swing_deg = np.linspace(-15, 15, 2001)
    unit = np.array(axis) / np.linalg.norm(axis)
    pose = poses(Rotation.from_rotvec(np.radians(swing_deg)[:, None] * unit))
    assert geodesic_range_deg(pose) == pytest.approx(0.95 * 30, abs=0.05)


def test_angular_speed_of_a_steady_turn_is_exact_even_when_it_is_slow():
    pose = poses(Rotation.from_euler("Y", np.linspace(0, 0.5, 49)[:, None], degrees=True))
    np.testing.assert_allclose(angular_speed_deg_s(pose, 12), 0.5 / 48 * 12, rtol=1e-3)


def test_angular_speed_equals_scipys_relative_rotation():
    rotations = Rotation.random(20, rng=np.random.default_rng(1))
    expected = np.degrees((rotations[1:] * rotations[:-1].inv()).magnitude()) * 25
    np.testing.assert_allclose(angular_speed_deg_s(poses(rotations), 25), expected, rtol=1e-4)


def test_nearest_rotation_takes_out_scale_and_never_reflects():
    R = Rotation.random(rng=np.random.default_rng(2)).as_matrix()
    np.testing.assert_allclose(nearest_rotation(3 * R), R, atol=1e-12)
    assert np.linalg.det(nearest_rotation(R @ np.diag([1, 1, -0.5]))) == pytest.approx(1)


def test_mirrored_frames_flip_yaw_and_roll_and_keep_pitch(
    landmarker: Landmarker, talking_man: np.ndarray, detected: Detections
):
    mirrored = head_pose_deg(landmarker(talking_man[:, :, ::-1]).pose)
    difference = mirrored - head_pose_deg(detected.pose) * [-1, 1, -1]
    assert (np.abs(np.median(difference, axis=0)) < 2).all()


def test_frames_turned_counter_clockwise_gain_roll(
    landmarker: Landmarker, talking_man: np.ndarray, detected: Detections
):
    cv2 = pytest.importorskip("cv2")
    turn = cv2.getRotationMatrix2D((88, 72), 10, 1)  # positive is counter-clockwise
    turned = np.stack([cv2.warpAffine(frame, turn, (176, 144)) for frame in talking_man])
    gained = head_pose_deg(landmarker(turned).pose)[:, 2] - head_pose_deg(detected.pose)[:, 2]
    assert np.median(gained) == pytest.approx(10, abs=1.5)
