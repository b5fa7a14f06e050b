import numpy as np
import pytest

from animation.stitch import edge_weight, stitch
from shards.schema import HEIGHT, WIDTH
from tests.animation.synthetic import portrait_with

GREY = np.full((400, 600, 3), 90, np.uint8)
WHITE = np.full((HEIGHT, WIDTH, 3), 250, np.uint8)


def smooth_picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / 40 + phase) * np.cos(y / 55) for phase in (0, 1, 2)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def test_what_lies_outside_the_window_never_changes():
    (result,) = stitch([WHITE], portrait_with(GREY, x=150, y=80, h=200))
    changed = (result != GREY).any(axis=-1)
    assert changed[80:280, 150:450].mean() > 0.9
    changed[80:280, 150:450] = False
    assert not changed.any()


def test_the_middle_of_the_window_is_the_frame():
    (result,) = stitch([WHITE], portrait_with(GREY, x=150, y=80, h=200))
    assert (result[100:260, 170:430] == 250).all()


def test_no_edge_is_seen_where_frame_and_picture_meet():
    (result,) = stitch([WHITE], portrait_with(GREY, x=150, y=80, h=200))
    across = result[180, 140:200, 0].astype(int)
    assert across[0] == 90
    assert across[-1] == 250
    assert np.abs(np.diff(across)).max() < 20  # of 160 in all


@pytest.mark.parametrize("h", [200, 400])
def test_a_frame_that_shows_what_the_picture_shows_changes_nothing(h):
    picture = smooth_picture(400, 600)
    portrait = portrait_with(picture, x=0 if h == 400 else 150, y=0 if h == 400 else 80, h=h)
    (result,) = stitch([portrait.canvas], portrait)
    assert np.abs(result.astype(int) - picture).max() <= 6


def test_where_the_window_ends_with_the_picture_nothing_mixes():
    (result,) = stitch([WHITE], portrait_with(GREY, x=0, y=0, h=200))
    assert (result[0, :250] == 250).all()
    assert (result[:150, 0] == 250).all()
    assert result[199, 100].max() < 95


def test_black_bars_are_not_put_back():
    # The window begins 30 columns left of the picture: bars of 72 columns on the canvas.
    frame = WHITE.copy()
    frame[:, :72] = 0
    (result,) = stitch([frame], portrait_with(GREY, x=-30, y=80, h=200))
    assert (result[180, :250] >= 240).all()


def test_frames_are_stitched_as_they_come():
    taken = []

    def frames():
        for i in range(3):
            taken.append(i)
            yield WHITE

    stitched = stitch(frames(), portrait_with(GREY, x=150, y=80, h=200))
    next(stitched)
    assert taken == [0]


def test_an_edge_weight_falls_only_where_it_shall():
    both, none = edge_weight(20, 5, True, True), edge_weight(20, 5, False, False)
    np.testing.assert_allclose(both, both[::-1])
    assert (np.diff(both[:6]) > 0).all()
    assert (none == 1).all()
    assert edge_weight(20, 5, True, False)[-1] == 1
