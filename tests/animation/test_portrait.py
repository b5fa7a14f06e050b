from pathlib import Path

import cv2
import numpy as np
import pytest

from animation.portrait import PortraitConfig, read_portrait
from faceloom.errors import UserError
from shards.schema import HEIGHT, WIDTH
from tests.animation.conftest import write_image

AUTO = PortraitConfig()


@pytest.fixture(scope="module")
def full_body(man: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The man in the upper half of a tall wall: his face is 56 of 433 lines."""
    wall = np.full((433, 301, 3), (70, 110, 90), np.uint8)
    wall[30:174, 90:266] = man[0]
    return write_image(tmp_path_factory.mktemp("portraits") / "full_body.png", wall)


def test_a_large_face_is_framed_as_the_release_frames_it(man, reader, tmp_path):
    portrait = read_portrait(write_image(tmp_path / "man.png", man[0]), reader, AUTO)
    assert not portrait.stitched
    # 144 lines of 3:2 are 216 columns, of which the picture has 176: black bars of 20 px at both sides, 67 on the canvas.
    assert portrait.canvas.shape == (HEIGHT, WIDTH, 3)
    assert portrait.canvas[:, :64].max() < 12
    assert portrait.canvas[:, -64:].max() < 12
    inside = cv2.resize(man[0], (587, 480), interpolation=cv2.INTER_CUBIC)
    assert np.abs(portrait.canvas[:, 67:654].astype(int) - inside).mean() < 3
    assert portrait.notes == ()


def test_the_face_that_is_found_lies_on_the_canvas_where_its_landmarks_say(man, reader, full_body, tmp_path):
    for path in (full_body, write_image(tmp_path / "man.png", man[0])):
        portrait = read_portrait(path, reader, AUTO)
        again = reader.still(portrait.canvas)
        expected = again.points[0, :, :2] * [WIDTH, HEIGHT]
        assert np.abs(portrait.in_canvas(portrait.record.points[0, :, :2]) - expected).max() < 12
        assert portrait.reference_drawing[portrait.reference_drawing.any(axis=-1)].size > 1000
        # The aligned face has its eyes on the template's, 240 lines below the top.
        eyes = reader.still(portrait.face).points[0, [468, 473], :2] * 512
        np.testing.assert_allclose(eyes, [[193, 240], [319, 240]], atol=12)


def test_a_small_face_gets_a_window_of_its_own(reader, full_body):
    portrait = read_portrait(full_body, reader, AUTO)
    assert portrait.stitched
    assert portrait.picture.shape == (432, 300, 3)  # even sides, for H.264
    own_px = portrait.box.height
    assert 0.33 < own_px / portrait.window.h < 0.5
    assert portrait.window.part_inside(portrait.box) == 1


def test_stitching_is_as_asked(man, reader, full_body, tmp_path):
    assert not read_portrait(full_body, reader, PortraitConfig(stitch="never")).stitched
    close = write_image(tmp_path / "man.png", man[0])
    assert read_portrait(close, reader, PortraitConfig(stitch="always")).stitched


def test_a_face_at_the_side_of_a_wide_picture_is_not_lost(man, reader, tmp_path):
    wide = np.full((144, 500, 3), (70, 110, 90), np.uint8)
    wide[:, -176:] = man[0]
    path = write_image(tmp_path / "wide.png", wide)
    portrait = read_portrait(path, reader, AUTO)
    assert portrait.stitched
    assert portrait.window.part_inside(portrait.box) == 1
    with pytest.raises(UserError, match=r"wide.png: its face is not all in the middle.*--stitch auto"):
        read_portrait(path, reader, PortraitConfig(stitch="never"))


def test_of_several_faces_the_largest_moves_and_it_is_said(man, reader, tmp_path):
    two = np.full((288, 640, 3), (70, 110, 90), np.uint8)
    two[:, 320 : 320 + 288] = cv2.resize(man[0], (352, 288), interpolation=cv2.INTER_CUBIC)[:, 32:320]
    two[60:204, 60:236] = man[0]
    portrait = read_portrait(write_image(tmp_path / "two.png", two), reader, AUTO)
    assert portrait.box.x0 > 320
    assert len(portrait.notes) == 1
    assert "shows 2 faces; the largest" in portrait.notes[0]


def test_a_picture_larger_than_any_video_is_shrunk_and_it_is_said(man, reader, tmp_path):
    path = tmp_path / "huge.jpg"
    write_image(path, cv2.resize(man[0], (176 * 30, 144 * 30)))
    portrait = read_portrait(path, reader, PortraitConfig(stitch="always"))
    height, width = portrait.picture.shape[:2]
    assert max(height, width) <= 4096
    assert height * width <= 36_864 * 256
    assert height % 2 == width % 2 == 0
    assert width / height == pytest.approx(176 / 144, rel=0.002)
    assert "shrunk to" in portrait.notes[0]


def test_pictures_of_no_use_are_named_with_the_remedy(man, reader, tmp_path):
    tiny = cv2.resize(man[0], (88, 72), interpolation=cv2.INTER_AREA)
    cases = [
        (
            write_image(tmp_path / "wall.png", np.full((300, 400, 3), 128, np.uint8)),
            r"wall.png: no face is found.*--portr",
        ),
        (write_image(tmp_path / "tiny.png", tiny), r"tiny.png: its face is \d+ px high, and 32 are needed.*larger"),
        (write_image(tmp_path / "dot.png", np.zeros((1, 1, 3), np.uint8)), r"dot.png: no face is found"),
        (tmp_path / "absent.png", r"absent.png: No such file"),
    ]
    for path, message in cases:
        with pytest.raises(UserError, match=message):
            read_portrait(path, reader, AUTO)
