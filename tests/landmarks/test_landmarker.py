import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmarks.landmarker import Box, landmark_box, tile_regions

COORDINATE = st.floats(-500, 2500)
BOXES = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), COORDINATE, COORDINATE, st.floats(1, 1500), st.floats(1, 1500)
)


@given(BOXES, BOXES)
def test_overlap_is_symmetric_and_between_none_and_all(a: Box, b: Box) -> None:
    assert a.iou(b) == pytest.approx(b.iou(a))
    assert 0 <= a.iou(b) <= 1
    assert a.iou(a) == pytest.approx(1)
    assert a.continues(a)


def test_overlap_of_known_boxes() -> None:
    assert Box(0, 0, 10, 10).iou(Box(5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert Box(0, 0, 10, 10).iou(Box(10, 0, 20, 10)) == 0


@pytest.mark.parametrize(
    ("other", "continues"),
    [
        (Box(40, 0, 140, 100), True),  # 0.4 of its size away
        (Box(55, 0, 155, 100), False),  # 0.55
        (Box(-35, -35, 135, 135), True),  # larger than 1.43 times, overlapping by 0.35
        (Box(45, 45, 215, 215), False),  # larger, moved
    ],
)
def test_a_face_continues_nearby_at_a_similar_size(other: Box, continues: bool) -> None:
    assert Box(0, 0, 100, 100).continues(other) is continues
    assert other.continues(Box(0, 0, 100, 100)) is continues


@given(BOXES, st.floats(1, 3), st.integers(1, 2000), st.integers(1, 2000))
def test_a_region_always_has_pixels_of_the_frame(box: Box, scale: float, width: int, height: int) -> None:
    x, y, w, h = box.square(scale, width, height)
    assert 0 <= x < x + w <= width
    assert 0 <= y < y + h <= height


def test_a_region_is_a_square_about_the_box() -> None:
    assert Box(400, 300, 500, 350).square(2, 1920, 1080) == (350, 225, 200, 200)


@given(st.integers(40, 4000), st.integers(40, 2200), st.integers(1, 5), st.floats(0, 0.6))
def test_tiles_cover_the_frame_and_overlap(width: int, height: int, tiles: int, overlap: float) -> None:
    parts = tile_regions(width, height, tiles, overlap)
    assert len(parts) == tiles**2
    for extent, limit in ((0, width), (1, height)):
        spans = sorted({(part[extent], part[extent] + part[extent + 2]) for part in parts})
        assert spans[0][0] == 0
        assert spans[-1][1] == limit
        for (_, stop), (start, after) in itertools.pairwise(spans):
            assert stop - start >= overlap * (after - start) - 2


def test_a_landmark_box_is_in_source_pixels() -> None:
    points = np.array([[0.25, 0.5, 0], [0.5, 0.75, 9], [0.3, 0.6, -9]])
    assert landmark_box(points, 800, 400) == Box(200, 200, 400, 300)
