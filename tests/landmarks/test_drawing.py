import numpy as np
import pytest

from landmarks.drawing import STYLES, draw, draw_on

STYLE = STYLES["a1_3d"]
GRID = np.stack(np.meshgrid(np.arange(24), np.arange(20)), axis=-1).reshape(-1, 2)[:478]
SPREAD = GRID * [29.0, 23.0] + 12.5  # px of a 480×720 picture; no two landmarks nearer than 23 px


def only(landmarks: tuple[int, ...], at: list[tuple[float, float]]) -> np.ndarray:
    points = np.full((478, 2), np.nan)
    points[list(landmarks)] = at
    return points


def test_the_style_has_the_edges_and_colours_of_the_release():
    assert sum(len(line) - 1 for _, line in STYLE.lines) == 88
    assert [dot[1:] for dot in STYLE.dots] == [(468, 3), (473, 3), (4, 5)]


def test_a_picture_uses_the_colours_of_its_style_and_no_other():
    picture = draw(SPREAD, 480, 720)
    assert picture.shape == (480, 720, 3)
    assert picture.dtype == np.uint8
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert colours <= {(0, 0, 0), *(line[0] for line in STYLE.lines), *(dot[0] for dot in STYLE.dots)}


def test_an_edge_is_one_pixel_wide_and_starts_in_the_pixel_that_holds_its_landmark():
    picture = draw(only((46, 53), [(10.9, 20.2), (30.0, 20.99)]), 480, 720)
    rows, columns = picture.any(axis=2).nonzero()
    assert set(rows) == {20}
    assert (columns.min(), columns.max()) == (10, 30)
    assert picture[20, 10].tolist() == [10, 220, 180]


def test_pupils_and_nose_are_squares_about_their_landmark():
    picture = draw(only((468, 4), [(100.5, 50.5), (200.5, 80.5)]), 480, 720)
    assert (picture[49:52, 99:102] == [10, 200, 250]).all()
    assert (picture[78:83, 198:203] == 255).all()
    assert picture.any(axis=2).sum() == 9 + 25


@pytest.mark.parametrize("outside", [(-0.1, 20), (720.1, 20), (30, -0.1), (30, 480.1), (np.nan, np.nan)])
def test_an_edge_with_an_end_outside_is_left_out(outside):
    assert not draw(only((46, 53), [(10, 20), outside]), 480, 720).any()


def test_the_far_border_belongs_to_the_last_pixel():
    picture = draw(only((46, 53), [(720, 480), (700, 480)]), 480, 720)
    assert picture[479, 719].any()


def test_a_missing_face_is_black():
    assert not draw(np.full((478, 2), np.nan), 480, 720).any()


def test_dots_at_the_border_are_cut():
    picture = draw(only((4,), [(0.0, 480.0)]), 480, 720)
    assert picture.any(axis=2).sum() == 9
    assert picture[477:, :3].all()


def test_a_picture_of_twice_the_size_has_larger_dots_and_thicker_lines():
    points = only((4, 46, 53), [(300.5, 80.5), (10, 20), (30, 20)])
    picture = draw(2 * points, 960, 1440).any(axis=2)
    assert picture[:, 601].sum() == 2 * 5
    assert picture[:, 40].sum() in (2, 3)  # OpenCV draws lines of thickness 2 three pixels wide


def test_drawing_on_a_frame_leaves_the_frame_alone():
    frame = np.full((480, 720, 3), 90, dtype=np.uint8)
    drawn = draw_on(frame, SPREAD)
    assert (frame == 90).all()
    lines = draw(SPREAD, 480, 720)
    drawn_there = lines.any(axis=2)
    np.testing.assert_array_equal(drawn[drawn_there], lines[drawn_there])
    assert (drawn[~drawn_there] == 90).all()


def test_an_unknown_style_is_refused_by_name():
    with pytest.raises(ValueError, match="a1_4d"):
        draw(SPREAD, 480, 720, style="a1_4d")
