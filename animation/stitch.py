"""Frames of the model put back into the picture that their window was cut from."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from animation.portrait import Portrait
from shards.schema import HEIGHT

_FEATHER = 0.08
"""Width of the edge over which frame and picture mix, as a share of the window's height."""


def stitch(frames: Iterable[NDArray[np.uint8]], portrait: Portrait) -> Iterator[NDArray[np.uint8]]:
    """Each of ``frames`` (uint8 [480, 720, 3]) where the portrait's window lies, in a copy of its picture [H, W, 3].

    The edges mix, but not those that are the picture's own; what lies outside the window never changes.
    """
    window = portrait.window
    x0, x1 = window.shown
    y0, y1 = window.y, window.y + window.h
    height, width = portrait.picture.shape[:2]
    ramp = max(1, round(_FEATHER * window.h))
    rows, columns = (
        edge_weight(y1 - y0, ramp, y0 > 0, y1 < height),
        edge_weight(x1 - x0, ramp, x0 > 0, x1 < width),
    )
    weight = (rows[:, None] * columns)[..., None]
    still = portrait.picture[y0:y1, x0:x1] * (1 - weight)
    method = cv2.INTER_AREA if window.h < HEIGHT else cv2.INTER_CUBIC
    for frame in frames:
        part = cv2.resize(frame, (window.w, window.h), interpolation=method)[:, x0 - window.x : x1 - window.x]
        whole = portrait.picture.copy()
        whole[y0:y1, x0:x1] = np.rint(still + part * weight)
        yield whole


def edge_weight(length: int, ramp: int, from_zero: bool, to_zero: bool) -> NDArray[np.float32]:
    """1 over ``length`` px, float32; towards an end that shall be 0 it falls over ``ramp`` px, as half a cosine wave."""
    weight = np.ones(length, np.float32)
    distance = (np.arange(length) + 0.5) / ramp
    for wanted, steps in ((from_zero, distance), (to_zero, distance[::-1])):
        if wanted:
            weight *= (0.5 - 0.5 * np.cos(np.pi * np.clip(steps, 0, 1))).astype(np.float32)
    return weight
