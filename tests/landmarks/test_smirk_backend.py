from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from faceloom import models
from faceloom.errors import UserError
from landmarks.flame import FlameModel, read_flame
from landmarks.record import LandmarkRecord
from landmarks.smirk_backend import SmirkBackend, load_smirk_backend
from landmarks.smirk_motion import CAMERA, EXPRESSION, EYELIDS, JAW, POSE, SmirkMotion
from landmarks.topology import EYES, Eye
from tests.landmarks import flame_files

WIDTH, HEIGHT = 640, 360
PUPILS = [468, 473]


@pytest.fixture(scope="module")
def flame(tmp_path_factory) -> FlameModel:
    return read_flame(*flame_files.write_all(tmp_path_factory.mktemp("flame"), np.random.default_rng(5)))


@pytest.fixture(scope="module")
def backend(flame: FlameModel) -> SmirkBackend:
    return SmirkBackend(flame)


def record(frames: int, seed: int, width: int = WIDTH, height: int = HEIGHT, still: bool = False) -> LandmarkRecord:
    """A face that moves at random; ``still`` holds its camera and crop."""
    rng = np.random.default_rng(seed)
    parameters = rng.normal(0, 0.3, (frames, 61))
    parameters[:, CAMERA] = rng.normal([7, 0.01, -0.02], 0.02, (frames, 3))
    parameters[:, EYELIDS] = rng.uniform(0, 1, (frames, 2))
    crop = np.zeros((frames, 2, 3))
    crop[:, 0, 0] = crop[:, 1, 1] = rng.uniform(0.5, 1.5, frames)
    crop[:, :, 2] = rng.uniform(-50, 200, (frames, 2))
    if still:
        parameters[:, CAMERA], crop[:] = parameters[0, CAMERA], crop[0]
    return LandmarkRecord(
        points=rng.uniform(0.2, 0.8, (frames, 478, 3)).astype(np.float32),
        blendshapes=np.zeros((frames, 52), dtype=np.float32),
        pose=np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)),
        found=np.ones(frames, dtype=bool),
        width=width,
        height=height,
        smirk=SmirkMotion(
            parameters.astype(np.float32), rng.normal(0, 1, 300).astype(np.float32), crop.astype(np.float32)
        ),
    )


def with_motion(face: LandmarkRecord, **changes: np.ndarray) -> LandmarkRecord:
    return replace(face, smirk=replace(face.smirk, **changes))


def drawn_by_hand(flame: FlameModel, face: LandmarkRecord, frame: int) -> np.ndarray:
    """One frame of mode `self`: ``[105, 2]`` px of the source."""
    row = face.smirk.parameters[frame]
    R = Rotation.from_rotvec(row[POSE]).as_matrix()
    head = flame.landmarks(face.smirk.shape, row[None, EXPRESSION], R[None], row[None, JAW], row[None, EYELIDS])[0]
    s, tx, ty = row[CAMERA]
    points = []
    for x, y, _ in head:
        crop_px = [(s * (x + tx) + 1) * 112, (1 - s * (y + ty)) * 112]
        points.append(face.smirk.crop[frame] @ [*crop_px, 1])
    return np.array(points)


def test_own_is_the_head_projected_frame_by_frame(backend: SmirkBackend, flame: FlameModel):
    face = record(4, seed=1)
    px = backend.own(face)[:, flame.numbers] * [WIDTH, HEIGHT]
    expected = [drawn_by_hand(flame, face, frame) for frame in range(4)]
    np.testing.assert_allclose(px, expected, atol=1e-3)


def test_the_projection_can_be_undone_to_the_metric_head(backend: SmirkBackend, flame: FlameModel):
    face = record(3, seed=2)
    motion = face.smirk
    px = backend.own(face)[:, flame.numbers].astype(np.float64) * [WIDTH, HEIGHT]
    crop_px = (px - motion.crop[:, None, :, 2]) / motion.crop[:, None, None, 0, 0]
    s, t = motion.parameters[:, None, CAMERA][..., :1], motion.parameters[:, None, CAMERA][..., 1:]
    head = flame.landmarks(
        motion.shape,
        motion.parameters[:, EXPRESSION],
        Rotation.from_rotvec(motion.parameters[:, POSE]).as_matrix(),
        motion.parameters[:, JAW],
        motion.parameters[:, EYELIDS],
    )
    np.testing.assert_allclose((crop_px / 112 - 1) * [1, -1] / s - t, head[..., :2], atol=1e-5)


def test_only_the_embedded_points_and_the_pupils_are_known(backend: SmirkBackend):
    points = backend.own(record(2, seed=1))
    assert points.shape == (2, 478, 2)
    assert points.dtype == np.float32
    known = np.isfinite(points).all(axis=(0, 2))
    assert set(np.flatnonzero(known)) == {*flame_files.NUMBERS.tolist(), *PUPILS}
    assert np.isnan(points[:, ~known]).all()


def test_onto_its_own_first_frame_is_own_when_camera_and_crop_hold_still(backend: SmirkBackend):
    face = record(5, seed=3, still=True)
    np.testing.assert_allclose(backend.onto(face, face.frames(slice(1))), backend.own(face), atol=1e-6)


def test_onto_begins_with_the_references_pose_and_place(backend: SmirkBackend, flame: FlameModel):
    driving, reference = record(3, seed=4), record(1, seed=5, width=500, height=800)
    parameters = reference.smirk.parameters.copy()
    for group in (EXPRESSION, JAW, EYELIDS):
        parameters[:, group] = driving.smirk.parameters[0, group]
    expected = backend.own(with_motion(reference, parameters=parameters))[0, flame.numbers]
    np.testing.assert_allclose(backend.onto(driving, reference)[0, flame.numbers], expected, atol=1e-6)


def test_onto_turns_the_reference_as_the_driver_turns_from_its_first_frame(backend: SmirkBackend, flame: FlameModel):
    driving, reference = record(3, seed=4), record(1, seed=5)
    R = Rotation.from_rotvec(driving.smirk.parameters[:, POSE])
    expected = Rotation.from_rotvec(reference.smirk.parameters[0, POSE]) * R[0].inv() * R
    parameters = driving.smirk.parameters.copy()
    parameters[:, POSE] = expected.as_rotvec()
    parameters[:, CAMERA] = reference.smirk.parameters[0, CAMERA]
    on_reference = with_motion(
        driving, parameters=parameters, shape=reference.smirk.shape, crop=np.repeat(reference.smirk.crop, 3, axis=0)
    )
    np.testing.assert_allclose(backend.onto(driving, reference), backend.own(on_reference), atol=1e-5)


def test_onto_knows_nothing_of_the_drivers_shape_camera_and_crop(backend: SmirkBackend):
    driving, reference = record(3, seed=6), record(1, seed=7)
    stranger = record(3, seed=8).smirk
    parameters = driving.smirk.parameters.copy()
    parameters[:, CAMERA] = stranger.parameters[:, CAMERA]
    other = with_motion(driving, parameters=parameters, shape=stranger.shape, crop=stranger.crop)
    np.testing.assert_array_equal(backend.onto(other, reference), backend.onto(driving, reference))


@pytest.mark.parametrize("eye", EYES, ids=["right", "left"])
def test_a_pupil_goes_where_the_affine_map_between_the_eyes_takes_it(backend: SmirkBackend, eye: Eye):
    iris, contour = eye.iris[0], eye.contour
    face = record(2, seed=9)
    drawn = backend.own(face)
    # The driver's eye is the drawn one under a shear, a scale and a shift; its pupil must come back through them.
    A, b, looks_at = np.array([[0.8, 0.2], [-0.1, 0.5]]), np.array([0.3, 0.1]), np.array([0.45, 0.55])
    points = face.points.copy()
    points[:, contour, :2] = drawn[:, contour] @ A.T + b
    points[:, iris, :2] = A @ looks_at + b
    moved = backend.own(replace(face, points=points))
    np.testing.assert_allclose(moved[:, iris], [looks_at] * 2, atol=1e-4)


def test_a_pupil_is_the_least_squares_fit_where_no_affine_map_is_exact(backend: SmirkBackend):
    face = record(1, seed=10)
    drawn = backend.own(face)[0].astype(np.float64)
    for eye in EYES:
        iris, contour = eye.iris[0], eye.contour
        source = face.points[0, contour, :2].astype(np.float64) * [WIDTH, HEIGHT]
        design = np.column_stack([source, np.ones(16)])
        fit = np.linalg.lstsq(design, drawn[list(contour)] * [WIDTH, HEIGHT], rcond=None)[0]
        expected_px = [*(face.points[0, iris, :2] * [WIDTH, HEIGHT]), 1] @ fit
        np.testing.assert_allclose(drawn[iris] * [WIDTH, HEIGHT], expected_px, atol=1e-2)


def test_a_frame_without_a_face_is_nan_and_leaves_the_others_alone(backend: SmirkBackend):
    face = record(3, seed=11)
    points, found = face.points.copy(), np.array([True, False, True])
    points[1] = np.nan
    gap = replace(face, points=points, found=found)
    for with_gap, without in [
        (backend.own(gap), backend.own(face)),
        (backend.onto(gap, face.frames(slice(1))), backend.onto(face, face.frames(slice(1)))),
    ]:
        assert np.isnan(with_gap[1]).all()
        np.testing.assert_array_equal(with_gap[[0, 2]], without[[0, 2]])


def test_a_record_that_mediapipe_made_is_refused(backend: SmirkBackend):
    face = record(1, seed=1)
    plain = replace(face, smirk=None)
    for call in (lambda: backend.own(plain), lambda: backend.onto(face, plain), lambda: backend.onto(plain, face)):
        with pytest.raises(ValueError, match="made by the backend mediapipe"):
            call()


def test_a_reference_of_several_frames_is_refused(backend: SmirkBackend):
    with pytest.raises(ValueError, match="one frame with a face"):
        backend.onto(record(3, seed=1), record(2, seed=2))


def test_a_reference_without_a_face_is_refused(backend: SmirkBackend):
    driving, reference = record(2, seed=3), record(1, seed=4)
    faceless = replace(reference, points=np.full_like(reference.points, np.nan), found=np.array([False]))
    with pytest.raises(ValueError, match="one frame with a face"):
        backend.onto(driving, faceless)


def test_the_backend_alone_is_loaded_from_the_users_files_without_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path))
    flame_files.write_all(tmp_path, np.random.default_rng(0))
    assert np.isfinite(load_smirk_backend("landmarks.backend").own(record(1, seed=1))[:, PUPILS]).all()


def test_without_the_users_files_all_that_are_missing_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("FACELOOM_MODELS", str(tmp_path))
    flame_files.write_all(tmp_path, np.random.default_rng(0))[2].unlink()
    Path(tmp_path, "flame", "generic_model.pkl").unlink()
    with pytest.raises(UserError) as caught:
        load_smirk_backend("landmarks.backend")
    message = str(caught.value)
    assert message.startswith("landmarks.backend asks for")
    for name in ("flame", "smirk-left-eyelid"):
        assert str(tmp_path / models.user_files()[name].file) in message
    assert "smirk-right-eyelid" not in message
