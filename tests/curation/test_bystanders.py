"""Second faces whose movement is known: none, the main face's mirrored, or their own."""

from pathlib import Path

import numpy as np
import pytest

from curation.bystanders import (
    Bystander,
    BystanderConfig,
    bystanders,
    flipped_residual,
    opposite_points,
    without,
)
from curation.character import Census, take_census
from curation.faces import FaceFinder
from landmarks.geometry import CanonicalFace, read_geometry
from landmarks.landmarker import Box, Face, landmark_box

CONFIG = BystanderConfig()
WIDTH, HEIGHT = 1280, 720
SIZE = (WIDTH, HEIGHT)
LOOKS = 9


@pytest.fixture(scope="module")
def canonical(task_file: Path) -> CanonicalFace:
    return read_geometry(task_file)


@pytest.fixture(scope="module")
def heads(canonical: CanonicalFace) -> np.ndarray:
    """``[2, LOOKS, 478, 2]``: two people who move and speak, px about their centre, x to the right and y down."""
    rng = np.random.default_rng(4)
    mesh = np.concatenate([canonical.vertices, canonical.vertices[468 - 10 :]])
    people = mesh[:, :2] * [1, -1] + rng.normal(0, 0.35, (2, 1, 478, 2))
    jaw = np.clip(-canonical.vertices[:, 1] / 8, 0, 1)
    mouths = rng.uniform(0, 1.2, (2, LOOKS, 1, 1)) * np.append(jaw, np.zeros(10))[None, None, :, None] * [0, 1]
    return 12 * (people + mouths)


def face(points: np.ndarray, x: float, y: float, expression: float) -> Face:
    placed = np.zeros((478, 3), np.float32)
    placed[:, :2] = np.add(points, [x, y]) / SIZE
    blendshapes = np.full(52, 0.3, np.float32)
    blendshapes[1:30] += expression
    return Face(placed, blendshapes, landmark_box(placed, WIDTH, HEIGHT), 1.0)


def moving(rng: np.random.Generator, around: float, by: float) -> np.ndarray:
    return around + by * np.cumsum(rng.normal(0, 1, LOOKS))


def census_of(main: list[Face], other: list[Face]) -> Census:
    return take_census(np.arange(LOOKS) / 2, list(map(list, zip(main, other, strict=True))))


@pytest.fixture(scope="module")
def main_faces(heads: np.ndarray) -> list[Face]:
    rng = np.random.default_rng(5)
    xs, ys = moving(rng, 400, 20), moving(rng, 330, 20)
    return [face(heads[0, i] * 1.4, xs[i], ys[i], rng.uniform(0, 0.3)) for i in range(LOOKS)]


def kinds(census: Census, canonical: CanonicalFace) -> list[str]:
    return [one.kind for one in bystanders(census, SIZE, canonical, CONFIG)]


def test_a_face_that_keeps_still_and_says_nothing_is_a_picture(
    heads: np.ndarray, main_faces: list[Face], canonical: CanonicalFace
) -> None:
    rng = np.random.default_rng(6)
    still = [face(heads[1, 0], 1000 + rng.normal(0, 1), 200, rng.normal(0, 0.01)) for _ in range(LOOKS)]
    census = census_of(main_faces, still)
    assert kinds(census, canonical) == ["poster"]
    assert without(census, bystanders(census, SIZE, canonical, CONFIG)).others == [[]] * LOOKS


@pytest.mark.parametrize(("by", "expression"), [(0.0, 0.4), (8.0, 0.0), (4.0, 0.4)])
def test_a_face_that_speaks_or_moves_is_a_person(
    by: float, expression: float, heads: np.ndarray, main_faces: list[Face], canonical: CanonicalFace
) -> None:
    rng = np.random.default_rng(7)
    xs = moving(rng, 1000, by)
    person = [face(heads[1, i], xs[i], 200, expression * rng.uniform(0, 1)) for i in range(LOOKS)]
    census = census_of(main_faces, person)
    assert kinds(census, canonical) == []
    assert without(census, []).others == census.others


def mirrored(faces: list[Face], opposite: np.ndarray, about: float, noise: float) -> list[Face]:
    """As a mirror shows them: x flipped about a line, so that the left eye is found where the right one was."""
    rng = np.random.default_rng(8)
    order = np.append(opposite, np.arange(468, 478))
    images = []
    for one in faces:
        px = one.points[:, :2] * SIZE
        flipped = (px * [-1, 1] + [2 * about, 0])[order] + rng.normal(0, noise, (478, 2))
        images.append(face(flipped, 0, 0, float(one.blendshapes[1] - 0.3)))
    return images


@pytest.mark.parametrize("noise_px", [0.0, 2.0])
def test_the_main_face_flipped_is_a_mirror_image(
    noise_px: float, main_faces: list[Face], canonical: CanonicalFace
) -> None:
    census = census_of(main_faces, mirrored(main_faces, opposite_points(canonical), 680, noise_px))
    assert kinds(census, canonical) == ["mirror"]


def test_a_rough_likeness_is_a_mirror_image_only_if_it_moves_against_the_main_face(
    heads: np.ndarray, main_faces: list[Face], canonical: CanonicalFace
) -> None:
    rough = mirrored(main_faces, opposite_points(canonical), 680, 6.0)
    assert kinds(census_of(main_faces, rough), canonical) == ["mirror"]  # beyond the limit for one that keeps still
    rng = np.random.default_rng(9)
    for x_by, y_by in ((60, 0), (0, 60)):  # another way sideways, or up and down
        strays = zip(rough, moving(rng, 0, x_by), moving(rng, 0, y_by), strict=True)
        elsewhere = [face(one.points[:, :2] * SIZE, x, y, 0.2 * rng.uniform()) for one, x, y in strays]
        assert kinds(census_of(main_faces, elsewhere), canonical) == []


def test_what_is_seen_for_less_than_3_seconds_is_a_person(
    heads: np.ndarray, main_faces: list[Face], canonical: CanonicalFace
) -> None:
    still = face(heads[1, 0], 1000, 200, 0)
    looks = [[one, *([still] if i < CONFIG.min_looks - 1 else [])] for i, one in enumerate(main_faces)]
    assert kinds(take_census(np.arange(LOOKS) / 2, looks), canonical) == []


def test_a_bystander_is_where_it_was_seen_last_before_and_first_after_a_time() -> None:
    def at(x: float) -> Face:
        return Face(np.zeros((478, 3), np.float32), np.zeros(52, np.float32), Box(x, 0, x + 1, 1), 1.0)

    one = Bystander("mirror", {look: at(look) for look in (2, 3, 5, 8)})
    times_s = np.arange(10) / 2
    assert [box.x0 for box in one.boxes(times_s, 1.6, 2.4)] == [3, 5]
    assert [box.x0 for box in one.boxes(times_s, 1.5, 2.5)] == [3, 5]
    assert [box.x0 for box in one.boxes(times_s, 0.0, 1.2)] == [2, 3]
    assert [box.x0 for box in one.boxes(times_s, 4.5, 6.0)] == [8]
    assert [box.x0 for box in one.boxes(times_s, 0.0, 5.0)] == [2, 3, 5, 8]


def test_points_have_an_opposite_and_that_one_has_them(canonical: CanonicalFace) -> None:
    opposite = opposite_points(canonical)
    np.testing.assert_array_equal(opposite[opposite], np.arange(468))
    assert opposite[33] == 263  # outer corners of the eyes
    assert opposite[4] == 4  # tip of the nose


def test_real_faces_a_man_is_like_his_flipped_picture_and_less_like_himself_later(
    man: np.ndarray, finder: FaceFinder, canonical: CanonicalFace
) -> None:
    opposite = opposite_points(canonical)

    def points(frame: np.ndarray) -> np.ndarray:
        (one,) = finder.census(frame)
        return one.points[:468, :2] * [176, 144]

    same = [flipped_residual(points(man[i]), points(man[i, :, ::-1]), opposite) for i in (0, 50, 100)]
    assert np.median(same) < CONFIG.max_mirror_residual
    later = [flipped_residual(points(man[i]), points(man[i + 60, :, ::-1]), opposite) for i in (0, 30, 50)]
    assert np.median(later) > CONFIG.max_mirror_residual
