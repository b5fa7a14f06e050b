"""Bars that a source carries: the picture inside them is what shares are taken of and what the crop may show."""

from collections.abc import Iterable

import numpy as np

from landmarks.landmarker import Region

_LEAST_SHARE = 0.02
"""Of the frame's height or width; less is taken for the edge of a worn or badly cropped picture, and left in."""
_TOLERANCE = 12
"""Levels from the bar's colour: what strong compression (crf 35) leaves on a flat surface."""
_FLAT = 0.97
"""A line belongs to a bar when this share of its pixels has the bar's colour."""
_EDGE = 0.7
"""Where a bar ends, the share falls to this within a few lines. A backdrop of one colour ends bit by bit, at hair and
shoulders."""
_SMEAR = 0.015
"""Of the frame's height or width: what compression and resizing blur the edge over, and so is no picture either."""
_SAMPLES = 120  # pixels looked at in a line


class _Side:
    """One side of the frame: which share of each line, counted from the edge, has the edge's ``colour`` in every frame."""

    def __init__(self, colour: np.ndarray, lines: int) -> None:
        self._colour = colour.astype(np.int16)
        self._shares = np.ones(lines)
        self._least = max(1, int(np.ceil(_LEAST_SHARE * 2 * (lines - 1))))

    def add(self, view: np.ndarray) -> None:
        """The lines of the next frame, ``[n, pixels, 3]``."""
        self._look(view, slice(0, self._least))
        # Most sources have no bars, and that shows in the first lines.
        if (self._shares[: self._least] >= _FLAT).all():
            self._look(view, slice(self._least, None))

    def lines(self) -> int:
        """Lines of the bar; 0 without one."""
        inner = np.flatnonzero(self._shares < _FLAT)
        if not len(inner) or inner[0] < self._least:
            return 0
        reach = self._shares[inner[0] : inner[0] + max(6, round(_SMEAR * 2 * len(self._shares)))]
        sharp = np.flatnonzero(reach < _EDGE)
        return int(inner[0] + sharp[0]) + 2 if len(sharp) else 0

    def _look(self, view: np.ndarray, part: slice) -> None:
        # In 16 bits: differences of unsigned bytes wrap.
        far = np.abs(view[part].astype(np.int16) - self._colour).max(axis=2) > _TOLERANCE
        self._shares[part] = np.minimum(self._shares[part], 1 - far.mean(axis=1))


class BarFinder:
    """Constant bars, of any colour, at the edges of all frames of a clip; fed frame by frame."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._sides: list[_Side] = []

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8 RGB ``[H, W, 3]``."""
        views = _from_each_side(frame)
        if self._size is None:
            self._size = (frame.shape[1], frame.shape[0])
            self._sides = [_Side(np.median(view[0], axis=0), len(view)) for view in views]
        for side, view in zip(self._sides, views, strict=True):
            side.add(view)

    def content(self) -> Region:
        """The picture inside the bars, ``x, y, w, h`` in source px; the whole frame where there are none.

        Raises ``ValueError`` if no frame was added.
        """
        if self._size is None:
            raise ValueError("no frame was added")
        width, height = self._size
        top, bottom, left, right = (side.lines() for side in self._sides)
        return left, top, width - left - right, height - top - bottom


def content_of(frames: Iterable[np.ndarray]) -> Region:
    """The picture inside the bars that all ``frames`` (uint8 RGB ``[H, W, 3]``, of one size) have; see :class:`BarFinder`."""
    finder = BarFinder()
    for frame in frames:
        finder.add(frame)
    return finder.content()


def _from_each_side(frame: np.ndarray) -> list[np.ndarray]:
    """Lines of ``frame`` from the top, bottom, left and right edge inwards: half of it each, ``_SAMPLES`` pixels a line."""
    height, width = frame.shape[:2]
    rows = frame[:, :: max(1, width // _SAMPLES)]
    columns = frame[:: max(1, height // _SAMPLES)].transpose(1, 0, 2)
    return [
        rows[: height // 2 + 1],
        rows[::-1][: height // 2 + 1],
        columns[: width // 2 + 1],
        columns[::-1][: width // 2 + 1],
    ]
