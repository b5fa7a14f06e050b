from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceloom.errors import UserError
from landmarks.extract import extract
from landmarks.geometry import CanonicalFace, read_geometry
from landmarks.landmarker import Landmarker
from landmarks.record import LandmarkRecord
from tests.landmarks.conftest import Detections

Extract = Callable[..., LandmarkRecord]

WIDTH, HEIGHT = 1280, 720
NOSE_TIP = 4


@pytest.fixture(scope="module")
def canonical(task_file: Path) -> CanonicalFace:
    return read_geometry(task_file)


@pytest.fixture(scope="module")
def record_of(task_file: Path, canonical: CanonicalFace) -> Iterator[Extract]:
    model = Landmarker(task_file)
    yield lambda *frames: extract(iter(frames), model, canonical)
    model.close()


@pytest.fixture(scope="module")
def head(talking_man: np.ndarray, detected: Detections) -> np.ndarray:
    """The man's head with a margin; his face, forehead to chin, is half as high."""
    x, y = (detected.points[0, :, :2] * [176, 144]).T
    left, right, top, bottom = x.min() - 20, x.max() + 20, y.min() - 30, y.max() + 20
    return talking_man[0][int(top) : int(bottom), int(left) : int(right)]


def scene(*people: tuple[np.ndarray, float, float, float]) -> np.ndarray:
    """A grey frame with pictures of heads centred at x, y (px), faces as high as a share of the frame."""
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    for head, x, y, share in people:
        scale = 2 * share * HEIGHT / head.shape[0]
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        part = cv2.resize(head, None, fx=scale, fy=scale, interpolation=method)
        top, left = round(y - part.shape[0] / 2), round(x - part.shape[1] / 2)
        frame[top : top + part.shape[0], left : left + part.shape[1]] = part
    return frame


def nose_px(record: LandmarkRecord) -> np.ndarray:
    return record.points[:, NOSE_TIP, :2] * [record.width, record.height]


def test_a_video_of_one_person_is_found_in_every_frame_where_mediapipe_sees_it(
    record_of: Extract, talking_man: np.ndarray, detected: Detections
) -> None:
    record = record_of(*talking_man)
    assert (len(record), record.width, record.height) == (30, 176, 144)
    assert record.found.all()
    # Searched in another region than the whole frame, so not to the last bit.
    differences = np.linalg.norm((record.points - detected.points)[..., :2] * [176, 144], axis=2)
    assert np.median(differences) < 1
    assert np.abs(record.blendshapes - detected.blendshapes).mean() < 0.03
    turns = np.einsum("tji,tjk->tik", record.pose[:, :3, :3], detected.pose[:, :3, :3])
    assert np.median(np.degrees(np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2))) < 3


def test_an_image_is_one_frame(record_of: Extract, talking_man: np.ndarray) -> None:
    record = record_of(talking_man[0])
    assert len(record) == 1
    assert record.found.all()


@pytest.mark.parametrize("share", [0.125, 0.2, 0.35])
@pytest.mark.parametrize("at", [(230, 430), (640, 360), (1030, 330)])
def test_a_face_is_found_wherever_it_is_from_an_eighth_of_the_height(
    record_of: Extract, head: np.ndarray, share: float, at: tuple[int, int]
) -> None:
    at_first = nose_px(record_of(head))[0]
    scale = 2 * share * HEIGHT / head.shape[0]
    expected = at + (at_first - [head.shape[1] / 2, head.shape[0] / 2]) * scale
    np.testing.assert_allclose(nose_px(record_of(scene((head, *at, share))))[0], expected, atol=0.05 * share * HEIGHT)


def test_of_two_faces_the_larger_is_taken_and_kept_when_the_other_grows(record_of: Extract, head: np.ndarray) -> None:
    first = scene((head, 300, 360, 0.3), (head, 1000, 360, 0.2))
    then = scene((head, 300, 360, 0.3), (head, 1000, 360, 0.38))
    x = nose_px(record_of(first, then, then))[:, 0]
    np.testing.assert_allclose(x, 300, atol=60)


def test_a_face_that_jumps_is_found_again(record_of: Extract, head: np.ndarray) -> None:
    record = record_of(scene((head, 300, 360, 0.3)), scene((head, 1000, 360, 0.15)))
    np.testing.assert_allclose(nose_px(record)[:, 0], [300, 1000], atol=60)


def test_frames_without_a_face_are_nan_and_not_found(record_of: Extract, talking_man: np.ndarray) -> None:
    empty = np.full_like(talking_man[0], 128)
    record = record_of(empty, talking_man[0], empty, empty, talking_man[1])
    assert record.found.tolist() == [False, True, False, False, True]
    for values in (record.points, record.blendshapes, record.pose):
        assert np.isnan(values[~record.found]).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (30, 40), (700, 500)])
def test_pictures_without_a_face_are_refused_whatever_their_size(record_of: Extract, size: tuple[int, int]) -> None:
    with pytest.raises(UserError, match="no face is found"):
        record_of(*[np.full((*size, 3), 128, np.uint8)] * 2)
