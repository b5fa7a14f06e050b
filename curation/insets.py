"""A screen in the screen: a window with straight sides around the main character that is not the frame's own edge."""

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from faceloom.config import Section
from landmarks.landmarker import Box, Region


class InsetConfig(Section):
    """When straight lines around a face are the frame of a window."""

    max_support: float = Field(0.85, gt=0, le=1)
    """Of each side of a rectangle, the part along which an edge stands still. Talking heads have no rectangle at all: a
    door or a board behind a person has no lower side, for the person hides it. Windows with a border have 0.9 and more."""


_WIDTH = 480
_STEP = 6.0  # levels between neighbouring px that make an edge ...
_CONTRAST = 2.0  # ... and this many times the usual step around it: foliage and carpets stand still, too
_SEEN = 0.6  # of the looks: a window's edge vanishes where what it shows has the colour of its border
_MARGIN = 0.02  # of the picture: nearer to its edge a side is the picture's own
_CANDIDATES = 8  # a side


class InsetFinder:
    """Edges that stand still over the looks of a census; fed look by look."""

    def __init__(self) -> None:
        self._looks = 0
        self._scale = 1.0
        self._across: NDArray[np.int32] | None = None  # steps from one column to the next
        self._along: NDArray[np.int32] | None = None  # steps from one row to the next

    def add(self, frame: np.ndarray) -> None:
        """The next look, uint8 RGB ``[H, W, 3]``."""
        height, width = frame.shape[:2]
        self._scale = min(1.0, _WIDTH / width)
        size = (max(1, round(width * self._scale)), max(1, round(height * self._scale)))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
        across = _steps(grey)
        along = _steps(np.ascontiguousarray(grey.T)).T
        self._across = across if self._across is None else self._across + across
        self._along = along if self._along is None else self._along + along
        self._looks += 1

    def support(self, face: Box, content: Region) -> float:
        """How well the weakest side of the best rectangle around ``face`` is seen, 0 to 1; both in px of the frames added.

        A side must be seen beside the face, too, whose body would hide a line behind it. 0 where there is no rectangle.
        """
        if self._across is None or self._along is None:
            return 0.0
        x0, y0, x1, y1 = (round(v * self._scale) for v in (face.x0, face.y0, face.x1, face.y1))
        cx, cy, cw, ch = (round(v * self._scale) for v in content)
        columns, rows = self._standing(self._across, 1), self._standing(self._along, 0).T
        margin_x, margin_y = max(2, round(_MARGIN * cw)), max(2, round(_MARGIN * ch))
        left = _candidates(columns, range(cx + margin_x, min(x0, columns.shape[1])), y0, y1)
        right = _candidates(columns, range(max(x1, 0), min(cx + cw - margin_x, columns.shape[1])), y0, y1)
        top = _candidates(rows, range(cy + margin_y, min(y0, rows.shape[1])), x0, x1)
        bottom = _candidates(rows, range(max(y1, 0), min(cy + ch - margin_y, rows.shape[1])), x0, x1)
        seen_x, seen_y = np.cumsum(columns, axis=0), np.cumsum(rows, axis=0)
        best = 0.0
        for a, b, c, d in itertools.product(left, right, top, bottom):
            sides = [(seen_x[d, x] - seen_x[c, x]) / (d - c) for x in (a, b)]
            sides += [(seen_y[b, y] - seen_y[a, y]) / (b - a) for y in (c, d)]
            best = max(best, float(min(sides)))
        return best

    def _standing(self, steps: NDArray[np.int32], axis: int) -> NDArray[np.int64]:
        """Where an edge stands still, within a px to either side; 0/1."""
        often = (steps >= _SEEN * self._looks).astype(np.uint8)
        kernel = np.ones((1, 3) if axis == 1 else (3, 1), np.uint8)
        return np.asarray(cv2.dilate(often, kernel)).astype(np.int64)


def _steps(grey: NDArray[np.float32]) -> NDArray[np.int32]:
    """Where ``grey[h, w]`` steps from one column to the next as at an edge; 0/1."""
    steps = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    return np.asarray((steps >= _STEP) & (steps >= _CONTRAST * cv2.blur(steps, (17, 1)))).astype(np.int32)


def _candidates(lines: NDArray[np.int64], at: range, start: int, stop: int) -> list[int]:
    """Of the lines ``at`` (columns of ``lines``) those best seen from ``start`` to ``stop``, if for half of it."""
    start, stop = max(0, start), min(len(lines), stop)
    if not at or stop <= start:
        return []
    seen = lines[start:stop, at.start : at.stop].mean(axis=0)
    order = np.argsort(-seen, kind="stable")[:_CANDIDATES]
    return [at.start + int(i) for i in order if seen[i] >= 0.5]
