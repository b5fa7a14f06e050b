"""Landmarks as the picture the landmark guider sees: lines for eyes, brows and lips, dots for pupils and nose.

A style is a table of the indices and colours that published inference code draws with, in the order it draws them:

- ``a1_3d``: SkyReels-A1's driving frames (``media_pipe/draw_util.py``, ``renderer.py``).
- ``a1_2d``: SkyReels-A1's reference frame (``media_pipe/draw_util_2d.py``), without the head and iris lines, which its
  inference switches off.
- ``fye``: Follow-Your-Emoji (``media_pipe/draw_util.py``), whose lips are the inner ones only.

None shows a face oval, which would carry the driver's identity. Follow-Your-Emoji draws one first, in black: it is seen
only over a frame. What SkyReels-A1 calls its oval in 3-D is a black polyline along the right eye. Most of it has the
colour of the eye, but two edges stay black, and the polyline comes before the left eye, the rest of the right one after.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from landmarks.angles import Floats
from landmarks.record import POINTS

RGB = tuple[int, int, int]
Line = tuple[RGB, tuple[int, ...]]  # colour, landmarks joined by the line
Dot = tuple[RGB, int, int]  # colour, landmark, side of the square


@dataclass(frozen=True)
class Style:
    """What to draw, in this order. Sizes are px of a 480-line picture."""

    lines: tuple[Line, ...]
    dots: tuple[Dot, ...]


# "Right" and "left" are the person's; on screen they are the other way round.
_RIGHT_EYE, _RIGHT_BROW, _RIGHT_PUPIL = (10, 200, 180), (10, 220, 180), (10, 200, 250)
_LEFT_EYE, _LEFT_BROW, _LEFT_PUPIL = (180, 200, 10), (180, 220, 10), (250, 200, 10)
_BLACK, _GREY, _WHITE, _RED = (0, 0, 0), (200, 200, 200), (255, 255, 255), (255, 0, 0)

# Each pair of rows is the right half, then the left half.
_OUTER_LOWER_LIP: tuple[Line, ...] = (
    ((10, 180, 20), (61, 146, 91, 181, 84, 17)),
    ((20, 10, 180), (17, 314, 405, 321, 375, 291)),
)
_INNER_LOWER_LIP: tuple[Line, ...] = (
    ((100, 100, 30), (78, 95, 88, 178, 87, 14)),
    ((100, 150, 50), (14, 317, 402, 318, 324, 308)),
)
_OUTER_UPPER_LIP: tuple[Line, ...] = (
    ((20, 80, 100), (61, 185, 40, 39, 37, 0)),
    ((80, 100, 20), (0, 267, 269, 270, 409, 291)),
)
_INNER_UPPER_LIP: tuple[Line, ...] = (
    ((120, 100, 200), (78, 191, 80, 81, 82, 13)),
    ((150, 120, 100), (13, 312, 311, 310, 415, 308)),
)
_LIPS = _OUTER_LOWER_LIP + _INNER_LOWER_LIP + _OUTER_UPPER_LIP + _INNER_UPPER_LIP

# MediaPipe's own connections: the lower and the upper edge of each.
_STOCK_LEFT_EYE: tuple[Line, ...] = (
    (_LEFT_EYE, (263, 249, 390, 373, 374, 380, 381, 382, 362)),
    (_LEFT_EYE, (263, 466, 388, 387, 386, 385, 384, 398, 362)),
)
_STOCK_RIGHT_EYE: tuple[Line, ...] = (
    (_RIGHT_EYE, (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    (_RIGHT_EYE, (33, 246, 161, 160, 159, 158, 157, 173, 133)),
)
_STOCK_LEFT_BROW: tuple[Line, ...] = (
    (_LEFT_BROW, (276, 283, 282, 295, 285)),
    (_LEFT_BROW, (300, 293, 334, 296, 336)),
)
_STOCK_RIGHT_BROW: tuple[Line, ...] = (
    (_RIGHT_BROW, (46, 53, 52, 65, 55)),
    (_RIGHT_BROW, (70, 63, 105, 66, 107)),
)
# From temple to temple below the chin; the forehead is left open.
_OVAL: tuple[Line, ...] = (
    (_BLACK, (251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152)),
    (_BLACK, (152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21)),
)

STYLES = {
    "a1_3d": Style(
        lines=(
            (_RIGHT_EYE, (144, 145, 153, 154, 155)),
            (_BLACK, (155, 157)),
            (_RIGHT_EYE, (157, 158, 159, 160, 161)),
            (_BLACK, (161, 33)),
            (_RIGHT_EYE, (33, 7, 163, 144)),
            (_LEFT_EYE, (362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398, 362)),
            (_LEFT_BROW, (285, 295, 282, 283, 276)),
            (_LEFT_BROW, (336, 296, 334, 293, 300)),
            (_RIGHT_EYE, (155, 133, 173, 157)),
            (_RIGHT_EYE, (161, 246, 33)),
            (_RIGHT_BROW, (46, 53, 52, 65, 55)),
            (_RIGHT_BROW, (70, 63, 105, 66, 107)),
            *_LIPS,
        ),
        dots=((_RIGHT_PUPIL, 468, 3), (_LEFT_PUPIL, 473, 3), (_WHITE, 4, 5)),
    ),
    "a1_2d": Style(
        lines=_STOCK_LEFT_EYE + _STOCK_RIGHT_EYE + _STOCK_LEFT_BROW + _STOCK_RIGHT_BROW + _LIPS,
        dots=((_RIGHT_PUPIL, 468, 2), (_LEFT_PUPIL, 473, 2), (_GREY, 4, 4)),
    ),
    "fye": Style(
        lines=_OVAL
        + _STOCK_LEFT_EYE
        + _STOCK_LEFT_BROW
        + _STOCK_RIGHT_EYE
        + _STOCK_RIGHT_BROW
        + _INNER_LOWER_LIP
        + _INNER_UPPER_LIP,
        dots=((_RED, 473, 6), (_RED, 468, 6)),
    ),
}


def draw(points_px: Floats, height: int, width: int, style: str = "a1_3d") -> NDArray[np.uint8]:
    """Draw ``points_px[478, 2]`` (px of the picture) on black, as :func:`draw_clip` does: ``[height, width, 3]`` RGB."""
    return np.asarray(draw_clip(points_px[None], height, width, style)[0])


def draw_clip(points_px: Floats, height: int, width: int, style: str = "a1_3d") -> NDArray[np.uint8]:
    """Draw each frame of ``points_px[T, 478, 2]`` (px of the picture) on black: ``[T, height, width, 3]`` RGB.

    A line with an end outside the picture is left out, and so is one with an end that is NaN: a landmark that is not
    known, or a missing face. The thickness of lines and the side of dots are the style's times round(height / 480), at
    least 1; OpenCV draws a line of thickness 2 three pixels wide, one of 3 five. Raises ``ValueError`` for an unknown
    style or points of another shape.
    """
    canvas = np.zeros((len(points_px), height, width, 3), dtype=np.uint8)
    _draw_over(canvas, points_px, style)
    return canvas


def draw_on(frame: NDArray[np.uint8], points_px: Floats, style: str = "a1_3d") -> NDArray[np.uint8]:
    """Draw ``points_px[478, 2]`` over a copy of ``frame[H, W, 3]``, RGB, by the same rules."""
    canvas = np.array(frame, order="C")
    _draw_over(canvas[None], points_px[None], style)
    return canvas


def _draw_over(canvas: NDArray[np.uint8], points_px: Floats, style: str) -> None:
    """Draw ``points_px[T, 478, 2]`` into ``canvas[T, H, W, 3]``, which is changed."""
    if style not in STYLES:
        raise ValueError(f"no drawing style {style!r}; there is {', '.join(STYLES)}")
    frames, height, width, _ = canvas.shape
    if points_px.shape != (frames, POINTS, 2):
        raise ValueError(f"points_px must be {[frames, POINTS, 2]}, not {list(points_px.shape)}")
    # One pixel at the released size, so that a larger picture looks the same after it is scaled down.
    thickness = max(1, round(height / 480))
    size = np.array([width, height])
    inside = np.all((points_px >= 0) & (points_px <= size), axis=-1)
    pixels = np.minimum(np.where(inside[..., None], points_px, 0), size - 1).astype(np.int32)

    for colour, line in STYLES[style].lines:
        ends, known = np.take(pixels, line, axis=1), np.take(inside, line, axis=1)
        drawn = known[:, :-1] & known[:, 1:]
        whole = np.asarray(drawn.all(axis=1))
        for t in range(frames):
            pieces = [ends[t]] if whole[t] else [ends[t, i : i + 2] for i in np.flatnonzero(drawn[t])]
            # In one call: it has the pixels of cv2.line on each edge, and what a call costs only once.
            cv2.polylines(canvas[t], pieces, False, colour, thickness)
    for colour, landmark, released_side in STYLES[style].dots:
        side = released_side * thickness
        for t in np.flatnonzero(inside[:, landmark]).tolist():
            x, y = pixels[t, landmark].tolist()
            top, left = y - side // 2, x - side // 2
            canvas[t, max(top, 0) : top + side, max(left, 0) : left + side] = colour
