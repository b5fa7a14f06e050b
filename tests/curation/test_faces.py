import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curation.character import CharacterConfig, contested, face_height_px, take_census, tolerated
from curation.faces import Box, CensusConfig, FaceFinder, _tiles, landmark_box
from tests.curation.conftest import Place

COORDINATE = st.floats(-500, 2500)
BOXES = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), COORDINATE, COORDINATE, st.floats(1, 1500), st.floats(1, 1500)
)


def backdrop(seed: int, height: int = 720, width: int = 1280) -> np.ndarray:
    """Texture of several sizes, as busy as a street and without a face."""
    rng = np.random.default_rng(seed)
    noise = sum(
        cv2.resize(
            rng.random((height // size, width // size, 3), np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        for size in (4, 12, 40)
    )
    return cv2.normalize(noise, None, 40, 215, cv2.NORM_MINMAX).astype(np.uint8)


# Boxes.


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
    config = CensusConfig(tiles=tiles, overlap=overlap)
    parts = _tiles(width, height, config)
    assert len(parts) == (tiles**2 if tiles > 1 else 0)
    for extent, limit in ((0, width), (1, height)):
        spans = sorted({(part[extent], part[extent] + part[extent + 2]) for part in parts})
        if not spans:
            continue
        assert spans[0][0] == 0
        assert spans[-1][1] == limit
        for (_, stop), (start, after) in itertools.pairwise(spans):
            assert stop - start >= overlap * (after - start) - 2


def test_a_landmark_box_is_in_source_pixels() -> None:
    points = np.array([[0.25, 0.5, 0], [0.5, 0.75, 9], [0.3, 0.6, -9]])
    assert landmark_box(points, 800, 400) == Box(200, 200, 400, 300)


@pytest.mark.parametrize("bad", [{"fps": 0}, {"tiles": 0}, {"overlap": 1.0}])
def test_settings_that_look_at_nothing_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        CensusConfig.model_validate(bad)


# The census, on real models.


@pytest.mark.parametrize("share", [0.10, 0.15, 0.30])
def test_a_face_is_found_wherever_it_is_from_a_tenth_of_the_height(
    share: float, finder: FaceFinder, place: Place
) -> None:
    for seed, (x, y) in enumerate([(230, 230), (640, 360), (1030, 490), (425, 250), (855, 480)]):
        frame = backdrop(seed)
        place(frame, x, y, share * 720)
        (face,) = finder.census(frame)
        assert face_height_px(face.points, 1280, 720) == pytest.approx(share * 720, rel=0.06)
        assert face.box.holds((x, y))
        assert face.blendshapes.shape == (52,)


def test_a_head_on_a_full_body_in_a_tall_frame_is_found(finder: FaceFinder, place: Place) -> None:
    frame = backdrop(3, 1920, 1080)
    cv2.rectangle(frame, (380, 420), (700, 1800), (60, 70, 110), -1)
    place(frame, 540, 330, 192)
    (face,) = finder.census(frame)
    assert face_height_px(face.points, 1080, 1920) == pytest.approx(192, rel=0.06)


def test_small_and_large_faces_are_counted_once_each_largest_first(finder: FaceFinder, place: Place) -> None:
    frame = backdrop(5)
    place(frame, 300, 330, 300)
    place(frame, 800, 200, 110)
    place(frame, 1100, 500, 80)
    faces = finder.census(frame)
    heights = [float(face_height_px(face.points, 1280, 720)) for face in faces]
    assert heights == pytest.approx([300, 110, 80], rel=0.06)


def test_no_face_is_invented(finder: FaceFinder, street: np.ndarray) -> None:
    assert [finder.census(backdrop(seed)) for seed in range(3)] == [[], [], []]
    looks = {i: len(finder.census(street[i])) for i in range(0, 250, 12)}
    assert {i for i, faces in looks.items() if faces} <= {36}  # where a man does look out of the picture


def test_two_faces_side_by_side_are_contested_in_every_look(finder: FaceFinder, man: np.ndarray) -> None:
    both = np.concatenate([man, man[:, :, ::-1]], axis=2)[::15]
    census = take_census(np.arange(len(both)) / 2, [finder.census(frame) for frame in both])
    contest = contested(census, both.shape[1] * both.shape[2], CharacterConfig())
    assert contest.all()
    assert not tolerated(contest, CharacterConfig())


def test_a_result_does_not_depend_on_what_was_seen_before(finder: FaceFinder, man: np.ndarray) -> None:
    (first,) = finder.census(man[0])
    for frame in man[10:40:10]:
        finder.census(frame)
    (again,) = finder.census(man[0])
    np.testing.assert_array_equal(first.points, again.points)


def test_following_finds_the_face_that_is_expected_and_no_other(
    finder: FaceFinder, place: Place, man: np.ndarray
) -> None:
    frame = backdrop(8)
    place(frame, 400, 360, 200)
    place(frame, 800, 360, 200)
    left, right = sorted(finder.census(frame), key=lambda face: face.box.x0)
    for face in (left, right):
        moved = Box(face.box.x0 + 30, face.box.y0 - 20, face.box.x1 + 30, face.box.y1 - 20)
        followed = finder.follow(frame, moved)
        assert followed is not None
        assert followed.box.iou(face.box) > 0.9
    assert finder.follow(frame, Box(550, 30, 650, 130)) is None
    assert finder.follow(frame, Box(-400, -400, -300, -300)) is None
