"""Landmarks as the picture the landmark guider sees: lines for eyes, brows and lips, dots for pupils and nose.

A style is a table. ``a1_3d`` is the picture SkyReels-A1's released inference code draws of the driving frames, re-made
from its indices and colours. It has no face oval, which would carry the driver's identity. Left out is an artefact of the
release, two black lines across the right eye.
"""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from landmarks.angles import Floats

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Style:
    """What to draw, in this order. Sizes are px of a 480-line picture."""

    lines: tuple[tuple[RGB, tuple[int, ...]], ...]  # colour, landmarks joined by the line
    dots: tuple[tuple[RGB, int, int], ...]  # colour, landmark, side of the square


# "Right" and "left" are the person's; on screen they are the other way round.
STYLES = {
    "a1_3d": Style(
        lines=(
            # right eye
            ((10, 200, 180), (144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33, 7, 163, 144)),
            # left eye
            ((180, 200, 10), (362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398, 362)),
            # left brow: lower and upper edge
            ((180, 220, 10), (285, 295, 282, 283, 276)),
            ((180, 220, 10), (336, 296, 334, 293, 300)),
            # right brow: lower and upper edge
            ((10, 220, 180), (46, 53, 52, 65, 55)),
            ((10, 220, 180), (70, 63, 105, 66, 107)),
            # outer lips: bottom right, bottom left, top right, top left
            ((10, 180, 20), (61, 146, 91, 181, 84, 17)),
            ((20, 10, 180), (17, 314, 405, 321, 375, 291)),
            ((20, 80, 100), (61, 185, 40, 39, 37, 0)),
            ((80, 100, 20), (0, 267, 269, 270, 409, 291)),
            # inner lips: bottom right, bottom left, top right, top left
            ((100, 100, 30), (78, 95, 88, 178, 87, 14)),
            ((100, 150, 50), (14, 317, 402, 318, 324, 308)),
            ((120, 100, 200), (78, 191, 80, 81, 82, 13)),
            ((150, 120, 100), (13, 312, 311, 310, 415, 308)),
        ),
        dots=(((10, 200, 250), 468, 3), ((250, 200, 10), 473, 3), ((255, 255, 255), 4, 5)),
    ),
}


def draw(points_px: Floats, height: int, width: int, style: str = "a1_3d") -> NDArray[np.uint8]:
    """Draw ``points_px[478, 2]`` (px of the picture) on black: ``[height, width, 3]`` RGB.

    What reaches outside the picture is left out line by line, and so is a missing face, whose points are NaN.
    """
    return draw_on(np.zeros((height, width, 3), dtype=np.uint8), points_px, style)


def draw_on(frame: NDArray[np.uint8], points_px: Floats, style: str = "a1_3d") -> NDArray[np.uint8]:
    """Draw ``points_px[478, 2]`` over a copy of ``frame[H, W, 3]``, RGB."""
    if style not in STYLES:
        raise ValueError(f"no drawing style {style!r}; there is {', '.join(STYLES)}")
    canvas = np.ascontiguousarray(frame).copy()
    height, width = canvas.shape[:2]
    # One pixel at the released size, so that a larger picture looks the same after it is scaled down.
    thickness = max(1, round(height / 480))
    size = np.array([width, height])
    inside = np.all((points_px >= 0) & (points_px <= size), axis=1)
    pixels = np.minimum(np.floor(np.nan_to_num(points_px)), size - 1).astype(int)

    for colour, line in STYLES[style].lines:
        for a, b in itertools.pairwise(line):
            if inside[a] and inside[b]:
                cv2.line(canvas, pixels[a].tolist(), pixels[b].tolist(), colour, thickness)
    for colour, landmark, side in STYLES[style].dots:
        if inside[landmark]:
            corner = pixels[landmark] - (side * thickness) // 2
            x, y = np.maximum(corner, 0)
            right, bottom = corner + side * thickness
            canvas[y:bottom, x:right] = colour
    return canvas
