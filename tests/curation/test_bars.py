"""Bars that are part of the source, made from noise and from real footage."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from curation.bars import BarFinder, content_of
from tests.videos import write

SIZES = [(180, 320), (97, 173)]
COLOURS = [(0, 0, 0), (255, 255, 255), (30, 60, 90)]


def pictures(height: int, width: int, count: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(height)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def framed(frames: list[np.ndarray], bars: tuple[int, int, int, int], colour: tuple[int, int, int]) -> list[np.ndarray]:
    """With ``bars`` at the top, bottom, left and right."""
    return [cv2.copyMakeBorder(frame, *bars, cv2.BORDER_CONSTANT, value=colour) for frame in frames]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("bars", [(20, 20, 0, 0), (0, 0, 40, 40), (25, 15, 40, 30), (0, 12, 0, 0), (0, 0, 0, 9)])
def test_bars_of_any_colour_at_any_sides_are_no_content(
    size: tuple[int, int], colour: tuple[int, int, int], bars: tuple[int, int, int, int]
) -> None:
    x, y, w, h = content_of(framed(pictures(*size), bars, colour))
    top, bottom, left, right = bars
    spare = 2  # px of picture given up at an edge that has a bar
    assert left <= x <= left + spare * (left > 0)
    assert top <= y <= top + spare * (top > 0)
    assert left + size[1] - spare * (right > 0) <= x + w <= left + size[1]
    assert top + size[0] - spare * (bottom > 0) <= y + h <= top + size[0]


def test_a_frame_without_bars_is_all_content() -> None:
    assert content_of(pictures(180, 320)) == (0, 0, 320, 180)


def test_less_than_2_percent_is_not_a_bar() -> None:
    assert content_of(framed(pictures(196, 320), (3, 0, 0, 0), (0, 0, 0))) == (0, 0, 320, 199)


def test_what_is_constant_in_some_frames_only_is_no_bar() -> None:
    bare = [cv2.copyMakeBorder(frame, 20, 0, 0, 0, cv2.BORDER_REFLECT) for frame in pictures(160, 320)]
    mixed = [*framed(pictures(160, 320), (20, 0, 0, 0), (0, 0, 0)), bare[0]]
    assert content_of(mixed) == (0, 0, 320, 180)
    assert content_of(mixed[::-1]) == (0, 0, 320, 180)
    flashing = [frame for colour in COLOURS for frame in framed(pictures(160, 320, 1), (20, 0, 0, 0), colour)]
    assert content_of(flashing) == (0, 0, 320, 180)


def test_a_picture_that_gets_as_dark_as_its_bars_keeps_the_size_it_has_in_the_light() -> None:
    lit = framed(pictures(160, 320), (20, 20, 0, 0), (0, 0, 0))
    assert content_of([np.zeros_like(lit[0]), *lit, np.zeros_like(lit[0])]) == content_of(lit)


def test_a_backdrop_of_one_colour_is_no_bar() -> None:
    frame = np.full((180, 320, 3), 235, np.uint8)
    cv2.ellipse(frame, (160, 95), (35, 50), 0, 0, 360, (90, 60, 50), -1)
    cv2.ellipse(frame, (160, 190), (80, 55), 0, 0, 360, (40, 40, 90), -1)
    assert content_of([frame] * 4) == (0, 0, 320, 180)


def test_an_empty_picture_is_left_whole() -> None:
    assert content_of([np.zeros((90, 160, 3), np.uint8)] * 2) == (0, 0, 160, 90)
    with pytest.raises(ValueError, match="no frame"):
        BarFinder().content()


@pytest.mark.parametrize("crf", [23, 35])
def test_bars_are_found_through_compression(crf: int, man: np.ndarray, tmp_path: Path) -> None:
    frames = framed([cv2.resize(frame, (352, 288)) for frame in man[::20]], (36, 36, 0, 0), (0, 0, 0))
    file = write(tmp_path / "barred.mp4", frames, rate=2, options={"crf": str(crf)})
    with av.open(str(file)) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    x, y, w, h = content_of(decoded)
    assert (x, w) == (0, 352)
    assert 35 <= y <= 44
    assert 316 <= y + h <= 325
