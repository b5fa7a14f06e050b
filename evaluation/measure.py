"""One number about one video, and how much of the video stands behind it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measure:
    """``value`` over ``frames`` of the video's ``total`` frames, in the unit that :mod:`evaluation.metrics` states.

    None for a value that cannot be had, never 0; ``reason`` then says why, in words for a person. ``offset`` is by how many
    frames later the other video was read, where that was searched for.
    """

    value: float | None
    frames: int
    total: int
    offset: int | None = None
    reason: str = ""

    @property
    def coverage(self) -> float | None:
        """``frames`` over ``total``; None of a video without frames."""
        return self.frames / self.total if self.total else None


def absent(reason: str, total: int = 0) -> Measure:
    """A measure that there is not."""
    return Measure(None, 0, total, reason=reason)


def mean_of(values: NDArray[np.float64], why_not: str, offset: int | None = None) -> Measure:
    """The mean over the frames ``values[T]`` that are not NaN; where all are, ``why_not``."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Measure(None, 0, len(values), offset, why_not)
    return Measure(float(known.mean()), len(known), len(values), offset)
