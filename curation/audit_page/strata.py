"""Rows of a ledger that decide alike today, and the seeded sample that stands for them where there are too many.

A stratum is the rows of one dataset that met one outcome by one rule. A page's counts of today are sums of strata, and so
exact; what another configuration would change is counted in the rows of the sample, each of which stands for as many rows
as its stratum has for each of its own.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from curation.redecide import FAILED, OUTCOMES, Decisions

MOST_ROWS = 40_000
"""Of a ledger with more rows a sample of about this size is taken: a row is at most some 240 bytes of the page."""
_LEAST_ROWS = 200
"""Of each stratum, so that rare outcomes are not estimated from a handful."""
_SEED = 0


@dataclass(frozen=True)
class Stratum:
    """``rows[n]`` are those of its ``size`` rows that stand for it; none for clips that failed, which nothing changes.

    ``dataset`` is a position in the list of datasets, ``rule`` a position in ``RULES`` or ``NO_RULE``. ``further`` are
    windows of clips beyond their first: samples, but no clips of the manifest.
    """

    dataset: int
    outcome: str
    rule: int
    further: bool
    size: int
    rows: npt.NDArray[np.int64]


def stratify(
    dataset: npt.NDArray[np.int64],
    recorded: Decisions,
    further: npt.NDArray[np.bool_],
    most_rows: int = MOST_ROWS,
) -> list[Stratum]:
    """The strata of a ledger, given each row's position in the list of datasets, its decision, and whether it is further.

    All rows are taken where they are at most ``most_rows``; else those of small strata and a seeded draw from the others.
    """
    outcome, rule = recorded.outcome.astype(np.int64), recorded.rule.astype(np.int64)
    key = ((dataset * len(OUTCOMES) + outcome) * 256 + rule + 1) * 2 + further
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    groups = np.split(order, starts[1:]) if len(order) else []
    decided = int(np.sum(outcome != FAILED))
    rng = np.random.default_rng(_SEED)
    strata = []
    for rows in groups:
        first = rows[0]
        taken = rows
        if outcome[first] == FAILED:
            taken = rows[:0]
        elif decided > most_rows:
            least = min(_LEAST_ROWS, most_rows // len(groups))
            share = max(least, most_rows * len(rows) // decided)
            if share < len(rows):
                taken = np.sort(rng.choice(rows, share, replace=False))
        strata.append(
            Stratum(
                dataset=int(dataset[first]),
                outcome=OUTCOMES[outcome[first]],
                rule=int(rule[first]),
                further=bool(further[first]),
                size=len(rows),
                rows=taken,
            )
        )
    return strata
