import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from curation.character import CharacterConfig, contested, face_height_px, take_census, tolerated
from curation.faces import CensusConfig, FaceFinder
from landmarks.landmarker import Box, Face, Region
from tests.curation.conftest import Place


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


def test_beside_a_face_only_what_is_one_in_its_mirror_image_too_is_another(
    finder: FaceFinder, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = backdrop(5)
    place(frame, 300, 330, 300)
    place(frame, 800, 200, 110)
    assert len(finder.census(frame)) == 2
    faces = finder._landmarker.faces

    def blind_to_mirror_images(picture: np.ndarray, region: Region, min_px: int = 0) -> list[Face]:
        return [] if picture.strides[1] < 0 else faces(picture, region, min_px)

    monkeypatch.setattr(finder._landmarker, "faces", blind_to_mirror_images)
    (face,) = finder.census(frame)
    assert face.box.holds((300, 330))


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
