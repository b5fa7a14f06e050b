import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from landmarks.geometry import metric_landmarks, read_geometry, reproject
from landmarks.record import dequantise, from_region, quantise
from tests.landmarks.conftest import Detections, Landmarker
from tests.landmarks.synthetic import CANONICAL, HEAD, photograph


def pose_of(yaw_pitch_roll: tuple[float, float, float], position: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("YXZ", yaw_pitch_roll, degrees=True).as_matrix()
    pose[:3, 3] = position
    return pose


angle = st.floats(-60, 60)


@given(
    st.tuples(angle, angle, angle),
    st.tuples(st.floats(-15, 15), st.floats(-15, 15), st.floats(-90, -25)),
    st.sampled_from([(1280, 720), (720, 1280), (512, 512)]),
)
def test_a_known_pose_and_head_are_recovered_from_their_photograph(angles, position, size):
    pose = pose_of(angles, position)
    found_pose, found_head = metric_landmarks(photograph(HEAD, pose, *size)[None], *size, CANONICAL)
    np.testing.assert_allclose(found_pose[0], pose, atol=2e-5)
    np.testing.assert_allclose(found_head[0], HEAD, atol=2e-5)


def test_a_frame_without_a_face_is_nan_and_leaves_its_neighbours_alone():
    points = np.stack([photograph(HEAD, pose_of((20, 0, 0), (0, 0, -50)), 640, 480)] * 3)
    points[1] = np.nan
    pose, metric = metric_landmarks(points, 640, 480, CANONICAL)
    assert np.isnan(pose[1]).all()
    assert np.isnan(metric[1]).all()
    np.testing.assert_allclose(pose[[0, 2]], np.stack([pose_of((20, 0, 0), (0, 0, -50))] * 2), atol=2e-5)


def test_no_face_at_all_gives_only_nan():
    pose, metric = metric_landmarks(np.full((2, 478, 3), np.nan), 640, 480, CANONICAL)
    assert pose.shape == (2, 4, 4)
    assert np.isnan(pose).all()
    assert np.isnan(metric).all()


def test_pose_equals_the_matrix_mediapipe_returns(detected: Detections, task_file: Path):
    pose, _ = metric_landmarks(detected.points, 176, 144, read_geometry(task_file))
    assert np.abs(pose - detected.pose).max() < 1e-3
    assert np.abs(pose - detected.pose)[:, :3, :3].max() < 1e-5


def test_metric_points_reproject_onto_the_landmarks_they_came_from(detected: Detections, task_file: Path):
    pose, metric = metric_landmarks(detected.points, 176, 144, read_geometry(task_file))
    px = reproject(metric, pose, 176, 144)
    assert np.abs(px - detected.points[..., :2] * [176, 144]).max() < 1e-2


def test_landmarks_of_a_region_give_the_pose_of_the_whole_frame(
    landmarker: Landmarker, talking_man: np.ndarray, detected: Detections, task_file: Path
):
    x, y, w, h = 20, 10, 150, 134
    in_region = landmarker(talking_man[:, y : y + h, x : x + w]).points
    points = from_region(in_region, (x, y, w, h), 176, 144)
    error_px = np.linalg.norm((points - detected.points)[..., :2] * [176, 144], axis=-1)
    assert np.median(error_px) < 1
    pose, _ = metric_landmarks(points, 176, 144, read_geometry(task_file))
    turned = Rotation.from_matrix(pose[:, :3, :3]) * Rotation.from_matrix(detected.pose[:, :3, :3]).inv()
    assert np.median(np.degrees(turned.magnitude())) < 3


def test_storing_landmarks_hardly_moves_pose_and_shape(detected: Detections, task_file: Path):
    canonical = read_geometry(task_file)
    pose, metric = metric_landmarks(detected.points, 176, 144, canonical)
    stored_pose, stored_metric = metric_landmarks(dequantise(quantise(detected.points)), 176, 144, canonical)
    turned = Rotation.from_matrix(stored_pose[:, :3, :3]) * Rotation.from_matrix(pose[:, :3, :3]).inv()
    assert np.degrees(turned.magnitude()).max() < 0.02
    assert np.abs(stored_metric - metric).max() < 0.005


def test_the_canonical_face_has_the_size_of_a_face(task_file: Path):
    canonical = read_geometry(task_file)
    np.testing.assert_allclose(np.ptp(canonical.vertices, axis=0), [15.5, 17.7, 10.0], atol=0.1)
    assert canonical.basis.shape == canonical.weights.shape == (33,)


def length_delimited(number: int, payload: bytes) -> bytes:
    size = len(payload)
    varint = b""
    while size > 127:
        varint += bytes([size & 127 | 128])
        size >>= 7
    return bytes([number << 3 | 2]) + varint + bytes([size]) + payload


def write_task(path: Path, packed: bool, vertices: int = 468) -> None:
    floats = [struct.pack("<f", k) for k in range(5 * vertices)]
    buffer = length_delimited(3, b"".join(floats)) if packed else b"".join(b"\x1d" + value for value in floats)
    mesh = length_delimited(1, b"\x08\x00\x10\x00" + buffer)
    basis = length_delimited(2, b"\x08\xac\x02\x15" + struct.pack("<f", 0.25))
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr("geometry_pipeline_metadata_landmarks.binarypb", mesh + basis + b"\x18\x01")


@pytest.mark.parametrize("packed", [False, True])
def test_the_canonical_face_is_read_from_either_float_encoding(tmp_path: Path, packed: bool):
    write_task(tmp_path / "face.task", packed)
    canonical = read_geometry(tmp_path / "face.task")
    np.testing.assert_array_equal(canonical.vertices[467], [2335, 2336, 2337])
    assert canonical.basis.tolist() == [300]
    assert canonical.weights.tolist() == [0.25]


def test_a_file_that_is_no_task_bundle_is_refused_by_name(tmp_path: Path):
    (tmp_path / "not_zip.task").write_bytes(b"hello")
    with zipfile.ZipFile(tmp_path / "empty.task", "w"):
        pass
    write_task(tmp_path / "short.task", packed=False, vertices=467)
    for name in ("not_zip.task", "empty.task", "short.task"):
        with pytest.raises(ValueError, match=name):
            read_geometry(tmp_path / name)
