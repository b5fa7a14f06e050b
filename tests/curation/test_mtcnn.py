"""Real weights on real faces."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from curation.faces import MTCNN_FILES, CensusConfig, FaceFinder
from curation.mtcnn import Mtcnn, by_smaller
from tests import fetched
from tests.curation.conftest import Place


@pytest.fixture(scope="module")
def mtcnn() -> Iterator[Mtcnn]:
    files = [fetched.model(name) for name in MTCNN_FILES]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Mtcnn(*files)
    torch.set_num_threads(threads)


def street_of(street: np.ndarray, seed: int) -> np.ndarray:
    return cv2.resize(street[60 + 20 * seed], (640, 272))


@pytest.mark.parametrize(("height", "x", "y"), [(22, 130, 120), (48, 320, 130), (120, 480, 140)])
def test_a_face_is_found_where_it_is_at_any_size(
    height: int, x: int, y: int, mtcnn: Mtcnn, place: Place, street: np.ndarray
) -> None:
    frame = street_of(street, 0)
    place(frame, x, y, height)
    hits = [box for _, box in mtcnn.detect(frame, 18, 0.9) if box.holds((x, y))]
    assert len(hits) == 1
    assert 0.7 < hits[0].height / height < 1.9  # its boxes reach from the hair to the chin


def test_faces_below_the_smallest_are_not_looked_for(mtcnn: Mtcnn, place: Place, street: np.ndarray) -> None:
    frame = street_of(street, 0)
    place(frame, 320, 130, 30)
    assert not [box for _, box in mtcnn.detect(frame, 90, 0.9) if box.holds((320, 130))]


def test_a_picture_without_anything_has_no_face(mtcnn: Mtcnn) -> None:
    assert mtcnn.detect(np.full((90, 160, 3), 128, np.uint8), 12, 0.7) == []
    assert mtcnn.detect(np.zeros((8, 8, 3), np.uint8), 12, 0.7) == []


def test_of_boxes_within_each_other_the_best_stays() -> None:
    boxes = torch.tensor(
        [[0, 0, 100, 100, 0.8], [10, 10, 60, 60, 0.9], [200, 0, 300, 100, 0.7], [0.0, 0, 40, 400, 0.6]]
    )
    assert by_smaller(boxes).tolist() == [boxes[1].tolist(), boxes[2].tolist(), boxes[3].tolist()]


@pytest.mark.parametrize(
    ("detector", "main_px", "counted"),
    [("blazeface", 60, 1), ("mtcnn", 60, 2), ("both", 60, 2), ("both", 110, 1)],  # 0.22 and 0.40 of the height
)
def test_small_second_faces_are_looked_for_by_mtcnn_and_by_both_where_the_main_face_is_small(
    detector: str, main_px: int, counted: int, task_file: Path, mtcnn: Mtcnn, place: Place, street: np.ndarray
) -> None:
    finder = FaceFinder(task_file, CensusConfig.model_validate({"detector": detector}))
    frame = street_of(street, 1)
    place(frame, 150, 130, main_px)
    place(frame, 450, 100, 20)  # 0.07 of the height, which tiles of BlazeFace miss
    heights = [face.box.height for face in finder.census(frame)]
    assert heights == pytest.approx([main_px, 20][:counted], rel=0.3)
    finder.close()
