"""Retargeting against closed forms on made-up faces, and against what a viewer would notice on a real one."""

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from landmarks.geometry import metric_landmarks, read_geometry, reproject
from landmarks.mediapipe_backend import MediaPipeBackend
from landmarks.record import LandmarkRecord
from landmarks.retarget import apparent_rotation, matching_face, ray_rotation, transfer_expression
from landmarks.topology import RIGHT_EYE
from tests.landmarks.conftest import Detections
from tests.landmarks.synthetic import CANONICAL, HEAD, photograph

WIDTH, HEIGHT = 1280, 720
BACKEND = MediaPipeBackend(CANONICAL)
rng = np.random.default_rng(3)
OTHER_HEAD = HEAD * [1.15, 0.9, 1.05] + rng.normal(0, 0.2, HEAD.shape)
INNER_LIPS = ((13, 14), (82, 87), (81, 178), (80, 88), (191, 95), (312, 317), (311, 402), (310, 318), (415, 324))


def pose_of(yaw_pitch_roll: tuple[float, float, float], t: tuple[float, float, float]) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("YXZ", yaw_pitch_roll, degrees=True).as_matrix()
    pose[:3, 3] = t
    return pose


def record_of(heads: np.ndarray, poses: list[np.ndarray], blendshapes: np.ndarray | None = None) -> LandmarkRecord:
    points = np.stack([photograph(h, p, WIDTH, HEIGHT) for h, p in zip(heads, poses, strict=True)])
    if blendshapes is None:
        blendshapes = np.random.default_rng(1).uniform(0, 1, (len(heads), 52))
    return LandmarkRecord(
        points.astype(np.float32),
        blendshapes.astype(np.float32),
        np.stack(poses).astype(np.float32),
        np.ones(len(heads), bool),
        WIDTH,
        HEIGHT,
    )


def talking(head: np.ndarray, frames: int) -> np.ndarray:
    """The head with its inner lips at ever other gaps, and noise of expression elsewhere."""
    heads = np.repeat(head[None], frames, axis=0) + np.random.default_rng(2).normal(0, 0.1, (frames, *head.shape))
    for i, gap in enumerate(np.linspace(0, 2, frames)):
        for upper, lower in INNER_LIPS:
            heads[i, upper] = heads[i, lower] + [0, gap, 0]
    return heads


def test_a_face_driven_by_itself_is_itself() -> None:
    driving = talking(HEAD, 6)
    shapes = rng.uniform(0, 1, (6, 52))
    np.testing.assert_allclose(transfer_expression(driving, shapes, driving[2], shapes[2]), driving, atol=1e-6)


def test_a_driver_who_does_not_move_leaves_the_reference_as_it_is() -> None:
    driving = np.repeat(HEAD[None], 5, axis=0)
    shapes = np.repeat(rng.uniform(0, 1, (1, 52)), 5, axis=0)
    reference = OTHER_HEAD.copy()
    for pairs in (INNER_LIPS, ((159, 145), (386, 374))):
        for upper, lower in pairs:  # the openings the driver has, so that no opening has to be carried over
            reference[upper] = reference[lower] + HEAD[upper] - HEAD[lower]
    moved = transfer_expression(driving, shapes, reference, shapes[0])
    assert np.abs(moved - moved[0]).max() < 1e-9
    rigid = [1, 4, 6, 10, 152, 234, 454, 33, 133, 362, 263]
    np.testing.assert_allclose(moved[0][rigid], reference[rigid], atol=1e-9)


def test_closed_lips_close_on_another_face_and_open_in_proportion() -> None:
    driving = talking(HEAD, 7)
    moved = transfer_expression(driving, rng.uniform(0, 1, (7, 52)), OTHER_HEAD, rng.uniform(0, 1, 52))
    for upper, lower in INNER_LIPS:
        ours = np.linalg.norm(moved[:, upper] - moved[:, lower], axis=1)
        theirs = np.linalg.norm(driving[:, upper] - driving[:, lower], axis=1)
        assert ours[0] < 1e-9
        assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_shut_eyes_shut_on_another_face() -> None:
    driving = talking(HEAD, 5)
    driving[3, 159] = driving[3, 145]
    moved = transfer_expression(driving, rng.uniform(0, 1, (5, 52)), OTHER_HEAD, rng.uniform(0, 1, 52))
    assert np.linalg.norm(moved[3, 159] - moved[3, 145]) < 1e-9
    assert np.linalg.norm(moved[2, 159] - moved[2, 145]) > 0.1


def test_a_portrait_with_shut_eyes_opens_them_with_the_driver() -> None:
    driving, shapes = talking(HEAD, 5), rng.uniform(0, 1, (5, 52))
    asleep = OTHER_HEAD.copy()
    asleep[159] = asleep[145]
    wanted = np.zeros(52)
    wanted[10] = 0.9  # eyeBlinkRight
    moved = transfer_expression(driving, shapes, asleep, wanted)
    wider = np.linalg.norm(asleep[33] - asleep[133]) / np.linalg.norm(np.subtract(*_matched(driving, shapes, wanted)))
    ours, theirs = moved[:, 159] - moved[:, 145], driving[:, 159] - driving[:, 145]
    np.testing.assert_allclose(ours, theirs * wider, rtol=1e-6)


def _matched(driving: np.ndarray, shapes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return matching_face(driving, shapes, wanted)[[33, 133]]


def test_a_driver_who_squints_does_not_throw_the_others_pupils_out_of_their_eyes() -> None:
    right = list(RIGHT_EYE.contour)
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)

    def with_eye(half_height: float) -> np.ndarray:
        head = HEAD.copy()
        head[right] = np.add([-3, 3, 5], np.stack([1.5 * np.cos(around), half_height * np.sin(around), 0 * around], 1))
        head[468] = [-3, 3 + 0.1, 5]
        return head

    for half_height in (0.2, 0.1, 0.05):
        driving = np.repeat(with_eye(half_height)[None], 3, axis=0)
        moved = transfer_expression(driving, np.zeros((3, 52)), with_eye(0.5), np.zeros(52))
        assert abs(moved[0, 468, 1] - moved[0, right, 1].mean()) <= 0.2 + 1e-9


def test_the_iris_keeps_its_place_in_an_eye_of_another_size() -> None:
    right = [33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246]
    around = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    head = HEAD.copy()
    head[right] = np.add([-3, 3, 5], np.stack([1.5 * np.cos(around), 0.5 * np.sin(around), np.zeros(16)], axis=1))
    reference = head.copy()
    reference[right, 0] = (head[right, 0] + 3) * 1.4 - 3  # a wider eye
    driving = np.repeat(head[None], 3, axis=0)
    driving[:, 468, :2] = np.add([-3, 3], [[-0.6, 0.1], [0, 0], [0.9, -0.2]])
    moved = transfer_expression(driving, np.zeros((3, 52)), reference, np.zeros(52))
    expected = np.add([-3, 3], [[-0.84, 0.1], [0, 0], [1.26, -0.2]])
    np.testing.assert_allclose(moved[:, 468, :2], expected, atol=1e-9)


def test_the_matching_face_is_the_frame_that_wears_the_wanted_expression() -> None:
    driving, shapes = talking(HEAD, 6), rng.uniform(0, 1, (6, 52))
    np.testing.assert_allclose(matching_face(driving, shapes, shapes[4]), driving[4], atol=1e-9)
    between = matching_face(driving, shapes, shapes[4] + 0.3)
    assert np.abs(between - driving[4]).max() > 1e-3


def test_the_neutral_coefficient_does_not_count_as_expression() -> None:
    driving, shapes = talking(HEAD, 4), rng.uniform(0, 1, (4, 52))
    wanted = shapes[1].copy()
    wanted[0] += 5
    np.testing.assert_allclose(matching_face(driving, shapes, wanted), driving[1], atol=1e-9)


def test_frames_without_a_face_are_left_out_and_stay_empty() -> None:
    driving, shapes = talking(HEAD, 5), rng.uniform(0, 1, (5, 52))
    whole = transfer_expression(driving[1:], shapes[1:], OTHER_HEAD, shapes[2])
    driving[0], shapes[0] = np.nan, np.nan
    moved = transfer_expression(driving, shapes, OTHER_HEAD, shapes[2])
    assert np.isnan(moved[0]).all()
    np.testing.assert_array_equal(moved[1:], whole)
    with pytest.raises(ValueError, match="no frame with a face"):
        transfer_expression(np.full_like(driving, np.nan), shapes, OTHER_HEAD, shapes[2])


def test_the_ray_rotation_turns_the_cameras_axis_to_the_head_by_the_shortest_way() -> None:
    towards = rng.normal(0, 1, (20, 3)) - [0, 0, 3]
    turned = ray_rotation(towards)
    np.testing.assert_allclose(turned[:, :, 2], -towards / np.linalg.norm(towards, axis=1, keepdims=True), atol=1e-12)
    axis = Rotation.from_matrix(turned).as_rotvec()
    np.testing.assert_allclose(axis[:, 2], 0, atol=1e-12)
    np.testing.assert_allclose(turned @ turned.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-12)


def test_a_head_that_turns_along_with_its_own_displacement_is_seen_from_the_same_side() -> None:
    ahead = pose_of((10, 5, 2), (0, 0, -50))
    aside = np.eye(4)
    aside[:3, 3] = [20, -8, -45]
    aside[:3, :3] = ray_rotation(aside[:3, 3]) @ ahead[:3, :3]
    np.testing.assert_allclose(apparent_rotation(aside), apparent_rotation(ahead), atol=1e-12)


def test_driving_oneself_from_ones_first_frame_keeps_place_and_shape() -> None:
    poses = [pose_of((4 * i, -3 * i, 2 * i), (0, 0, -50)) for i in range(5)]
    record = record_of(np.repeat(HEAD[None], 5, axis=0), poses, np.zeros((5, 52)))
    own, onto = BACKEND.own(record), BACKEND.onto(record, record.frames(slice(0, 1)))
    np.testing.assert_allclose(onto * [WIDTH, HEIGHT], own * [WIDTH, HEIGHT], atol=0.01)


def test_the_drivers_translation_and_size_are_dropped_and_the_references_kept() -> None:
    wandering = [pose_of((0, 0, 0), (3 * i - 5, 2 * i, -40 - 6 * i)) for i in range(4)]
    driving = record_of(np.repeat(HEAD[None], 4, axis=0), wandering, np.zeros((4, 52)))
    poses = [ray_rotation(p[:3, 3]) for p in wandering]  # turned along, so that the camera sees no rotation
    for pose, rotation in zip(wandering, poses, strict=True):
        pose[:3, :3] = rotation
    driving = record_of(np.repeat(HEAD[None], 4, axis=0), wandering, np.zeros((4, 52)))
    reference = record_of(HEAD[None], [pose_of((12, 3, -4), (6, -2, -60))], np.zeros((1, 52)))
    moved = BACKEND.onto(driving, reference) * [WIDTH, HEIGHT]
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:1], moved.shape), atol=0.02)
    np.testing.assert_allclose(moved[0], reference.points[0, :, :2] * [WIDTH, HEIGHT], atol=0.02)


def test_the_head_turns_from_the_references_pose_as_the_drivers_does_from_its_first() -> None:
    """R = R_ref · R_0⁻¹ · R_i, with heads straight ahead, where rotations seen and rotations are one."""
    driven = [pose_of((5, 10, 0), (0, 0, -50)), pose_of((25, 4, 8), (0, 0, -50))]
    driving = record_of(np.repeat(HEAD[None], 2, axis=0), driven, np.zeros((2, 52)))
    reference = record_of(OTHER_HEAD[None], [pose_of((-15, -5, 3), (0, 0, -70))], np.zeros((1, 52)))
    moved = BACKEND.onto(driving, reference)
    start = BACKEND.onto(driving.frames(slice(0, 1)), reference)
    r0, r1 = (Rotation.from_matrix(p[:3, :3]) for p in driven)
    face = metric_landmarks(reference.points, WIDTH, HEIGHT, CANONICAL)
    expected_pose = np.asarray(face.pose, float).copy()
    expected_pose[0, :3, :3] = face.pose[0, :3, :3] @ (r0.inv() * r1).as_matrix()
    shape = transfer_expression(
        metric_landmarks(driving.points, WIDTH, HEIGHT, CANONICAL).points,
        driving.blendshapes,
        face.points[0],
        reference.blendshapes[0],
    )
    expected = reproject(shape[1:], expected_pose, WIDTH, HEIGHT)
    np.testing.assert_allclose(moved[1:] * [WIDTH, HEIGHT], expected, atol=0.05)
    assert np.abs(start[0] - moved[0]).max() * WIDTH < 0.05


def test_a_long_driver_is_carried_over_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same result, and with memory for little more than a record has of each frame: its points are 5.7 kB."""
    frames = 300
    driving = record_of(talking(HEAD, frames), [pose_of((i / 10, 0, 0), (0, 0, -50)) for i in range(frames)])
    reference = record_of(OTHER_HEAD[None], [pose_of((-15, -5, 3), (0, 0, -70))])
    whole = BACKEND.onto(driving, reference)
    monkeypatch.setattr("landmarks.geometry._PIECE", 16)
    tracemalloc.start()
    moved = BACKEND.onto(driving, reference)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(moved, whole, atol=1e-6)
    assert peak < frames * 20_000


def test_a_reference_must_be_one_frame_with_a_face() -> None:
    record = record_of(talking(HEAD, 3), [pose_of((0, 0, 0), (0, 0, -50))] * 3)
    with pytest.raises(ValueError, match="one frame with a face"):
        BACKEND.onto(record, record)


def test_a_real_face_driven_by_its_first_frame_stays_within_two_percent(
    detected: Detections, talking_man: np.ndarray, task_file: object
) -> None:
    """Up to translation and size, which the mode drops by its definition."""
    height, width = talking_man.shape[1:3]
    record = LandmarkRecord(
        detected.points,
        detected.blendshapes,
        detected.pose.astype(np.float32),
        np.ones(len(detected.points), bool),
        width,
        height,
    )
    backend = MediaPipeBackend(read_geometry(task_file))  # type: ignore[arg-type]
    size = np.array([width, height])
    moved = backend.onto(record, record.frames(slice(0, 1))).astype(np.float64) * size
    truth = record.points[..., :2].astype(np.float64) * size
    moved -= moved.mean(axis=1, keepdims=True)
    truth -= truth.mean(axis=1, keepdims=True)
    moved *= (np.sum(moved * truth, axis=(1, 2)) / np.sum(moved**2, axis=(1, 2)))[:, None, None]
    error = np.linalg.norm(moved - truth, axis=2).mean(axis=1)
    eyes = np.linalg.norm(truth[:, 468] - truth[:, 473], axis=1)
    assert (error / eyes).mean() < 0.02
