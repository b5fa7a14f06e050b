"""Histograms of a ledger's statistics over all of its rows, kept ones apart, with edges at round numbers."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_BINS = 40
_TAIL = 0.002
_LEAST_WIDTH = 1e-300  # subnormal numbers have no power of ten to be a multiple of


@dataclass(frozen=True)
class Histogram:
    """``kept[n]`` and ``others[n]`` count the rows in bins of width ``step`` from ``low`` on.

    The first and the last bin also hold what lies beyond them: ``below`` and ``above`` rows. ``whole`` says that each bin is
    one whole number, the one that it begins with. Rows without the value are in none.
    """

    low: float
    step: float
    kept: list[int]
    others: list[int]
    below: int
    above: int
    whole: bool


def histogram(
    values: npt.NDArray[np.float64], kept: npt.NDArray[np.bool_], shown: Iterable[float] = (), countable: bool = False
) -> Histogram | None:
    """The histogram of ``values[N]``, wide enough for the numbers ``shown``; None if no row has the value.

    It spans all but the outermost 0.2 % at either end. ``countable`` values that are all whole numbers have a bin each,
    unless they spread too far.
    """
    measured = np.isfinite(values)
    values, kept = values[measured], kept[measured]
    if not len(values):
        return None
    tail = int(_TAIL * len(values))
    ends = [tail, len(values) - 1 - tail]
    marks = [*np.partition(values, ends)[ends], *(mark for mark in shown if np.isfinite(mark))]
    low, high = float(min(marks)), float(max(marks))
    if 0 <= low < 0.5 * high:
        low = 0.0
    width = (high - low if high > low else abs(high)) / _BINS
    step = round_step(width if width > _LEAST_WIDTH else 0.1)
    whole = bool(countable and step <= 1 and np.all(values == np.rint(values)))
    step = 1.0 if whole else step
    low = np.floor(low / step) * step
    bins = int(np.floor((high - low) / step)) + 1
    place = np.clip(np.floor((values - low) / step), 0, bins - 1).astype(np.int64)
    return Histogram(
        low=float(low),
        step=step,
        kept=np.bincount(place[kept], minlength=bins).tolist(),
        others=np.bincount(place[~kept], minlength=bins).tolist(),
        below=int(np.sum(values < low)),
        above=int(np.sum(values >= low + bins * step)),
        whole=whole,
    )


def round_step(at_least: float) -> float:
    """The smallest of 1, 2 or 5 times a power of ten that is not below ``at_least`` > 0."""
    power = float(10 ** np.floor(np.log10(at_least)))
    for digit in (1, 2, 5):
        if digit * power >= at_least * (1 - 1e-9):
            return float(f"{digit * power:.0e}")
    return float(f"{10 * power:.0e}")
