from fractions import Fraction

import numpy as np
import pytest

from animation.driving import Drawings, drive, read_driver
from animation.portrait import PortraitConfig, read_portrait
from faceloom.errors import UserError
from landmarks.drawing import draw_clip
from shards.schema import HEIGHT, WIDTH
from tests import videos
from tests.animation.conftest import write_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("driving")


@pytest.fixture(scope="module")
def talking(man, folder, reader):
    """Two seconds in which the man leans over and talks, every fifth of his frames."""
    path = videos.write(folder / "talking.mp4", list(man[:120:5]), rate=12)
    return read_driver(path, 12, reader)


@pytest.fixture(scope="module")
def first_frame(man, folder, reader):
    """The man as a portrait, as he looks in the first frame of the driver."""
    return read_portrait(write_image(folder / "man.png", man[0]), reader, PortraitConfig())


def without_place(points: np.ndarray) -> np.ndarray:
    """``points[T, 478, 2]`` as to shape and turn alone: centred, of one size."""
    centred = points - points.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=(1, 2), keepdims=True))


def test_a_driver_is_sampled_at_the_rate_that_is_asked_for(man, folder, reader):
    path = videos.write(folder / "thirty.mp4", list(man[:30]), rate=Fraction(30000, 1001))
    seen = []
    driver = read_driver(path, 12, reader, lambda done, of: seen.append((done, of)))
    assert len(driver) == 12
    assert seen == [(i, 12) for i in range(12)]
    assert len(read_driver(path, 6, reader)) == 6
    shown = np.stack(list(driver.frames()))
    assert len(shown) == 12
    assert np.abs(shown[4].astype(int) - man[10]).mean() < 4  # 4/12 s are 10 of its frames


def test_the_first_frame_of_a_driver_drives_himself_to_where_he_is(first_frame, talking, reader):
    points, held = drive(first_frame, talking, reader.backend, "relative")
    own = first_frame.in_canvas(reader.backend.own(talking.record))
    assert points.shape == (len(talking), 478, 2)
    assert held == 0
    # Half a px of his 176: compression has changed the frame a little.
    assert np.abs(points[0] - own[0]).max() < 5


def test_self_driven_he_moves_as_he_did_but_for_the_place_of_his_head(first_frame, talking, reader):
    points, _ = drive(first_frame, talking, reader.backend, "relative")
    own = first_frame.in_canvas(reader.backend.own(talking.record))
    face_px = np.ptp(own[0, :, 1])
    shape_error = np.abs(without_place(points) - without_place(own)).mean(axis=(1, 2))
    still_error = np.abs(without_place(own[:1]) - without_place(own)).mean(axis=(1, 2))
    # Holding still is off by ten times as much and more.
    assert still_error.mean() > 0.05
    assert shape_error.mean() < 0.15 * still_error.mean()
    # His head stays where the portrait has it, also while he leans over.
    assert np.ptp(points.mean(axis=1), axis=0).max() < 0.25 * face_px


def test_with_motion_self_the_landmarks_are_his_own(first_frame, talking, reader):
    points, _ = drive(first_frame, talking, reader.backend, "self")
    x, y = np.moveaxis(talking.record.points[..., :2] * [176, 144], -1, 0)
    # The release's frame of 176×144: 20 black columns at each side, 3 1/3 times as large.
    np.testing.assert_allclose(points, np.stack([(x + 20) / 0.3, y / 0.3], -1), atol=1e-2)


def test_motion_self_is_refused_for_a_picture_of_another_shape(man, talking, reader, folder):
    wide = np.pad(man[0], ((0, 0), (40, 40), (0, 0)), "edge")
    portrait = read_portrait(write_image(folder / "wide.png", wide), reader, PortraitConfig())
    with pytest.raises(UserError, match=r"176x144 px, the portrait has 256x144: motion self"):
        drive(portrait, talking, reader.backend, "self")


def test_short_gaps_are_filled_and_long_ones_hold_the_last_that_was_seen(man, first_frame, folder, reader):
    empty = np.full_like(man[0], 128)
    shots = [*[empty] * 5, man[0], man[10], empty, empty, man[20], man[30], *[empty] * 4, man[40]]
    driver = read_driver(videos.write(folder / "gaps.mp4", shots, rate=12), 12, reader)
    points, held = drive(first_frame, driver, reader.backend, "relative")
    assert held == 9
    assert np.isfinite(points).all()
    assert (points[:5] == points[5]).all()
    assert not (points[7] == points[6]).any()  # filled, on the way from one to the other
    assert (points[11:15] == points[10]).all()
    assert not (points[15] == points[10]).any()


def test_a_driver_without_a_face_is_named(folder, reader):
    path = videos.write(folder / "faceless.mp4", [np.full((144, 176, 3), 128, np.uint8)] * 4, rate=12)
    with pytest.raises(UserError, match=r"faceless.mp4: no face is found.*--driving"):
        read_driver(path, 12, reader)
    with pytest.raises(UserError, match=r"absent.mp4 does not exist; give another file with --driving"):
        read_driver(folder / "absent.mp4", 12, reader)


def test_drawings_are_made_when_they_are_asked_for():
    points = np.random.default_rng(0).uniform([0, 0], [WIDTH, HEIGHT], (5, 478, 2)).astype(np.float32)
    drawings, expected = Drawings(points, "a1_2d"), draw_clip(points, HEIGHT, WIDTH, "a1_2d")
    assert len(drawings) == 5
    assert (drawings[1:4] == expected[1:4]).all()
    assert (drawings[4] == expected[4]).all()
    assert drawings[5:].shape == (0, HEIGHT, WIDTH, 3)
