"""Which clips a page shows: for each rule those nearest to its threshold and some at random, and some that were kept."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curation.redecide import KEPT, NO_RULE, REJECTED, Decisions
from curation.rules import RULES

KEPT_SHOWN = 4
REJECTED_SHOWN = 3
_NEAREST = 1
_SEED = 0


@dataclass(frozen=True)
class Example:
    """Row ``row`` of the ledger, shown under ``rule``, a position in ``RULES`` or ``NO_RULE`` for a kept clip."""

    rule: int
    row: int


def choose(recorded: Decisions) -> list[Example]:
    """Kept clips, then rejected ones in the order of the rules; the same for the same ledger."""
    return [*_choose(recorded)]


def _choose(recorded: Decisions) -> Iterator[Example]:
    rng = np.random.default_rng(_SEED)
    for row in _draw(rng, np.flatnonzero(recorded.outcome == KEPT), KEPT_SHOWN):
        yield Example(NO_RULE, int(row))
    for rule in range(len(RULES)):
        rows = np.flatnonzero((recorded.outcome == REJECTED) & (recorded.rule == rule))
        distance = np.abs(recorded.value[rows] - recorded.threshold[rows])
        order = rows[np.argsort(distance, kind="stable")]
        drawn = _draw(rng, order[_NEAREST:], REJECTED_SHOWN - _NEAREST)
        for row in [*order[:_NEAREST], *drawn]:
            yield Example(rule, int(row))


def _draw(rng: np.random.Generator, rows: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    return np.sort(rng.choice(rows, most, replace=False)) if len(rows) > most else rows
