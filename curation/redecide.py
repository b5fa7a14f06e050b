"""The rules asked again, under another configuration, of every row of a ledger at once.

Only thresholds can be asked again. What a setting changes in how a clip is measured, or in which windows it has, is not in
the ledger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.config import CurationConfig
from curation.expressions import evaluate, statistics_in
from curation.rules import RULES
from curation.statistics import STATISTICS

OUTCOMES: Final = ("kept", "rejected", "failed", "unknown")
"""A decision's ``outcome`` is a position in this table. ``unknown``: nothing that was measured breaks a rule, but the clip
became no sample, so it must be curated again."""
KEPT, REJECTED, FAILED, UNKNOWN = range(len(OUTCOMES))
NO_RULE: Final = -1


@dataclass(frozen=True)
class Decisions:
    """One decision a row of a ledger with N rows.

    ``outcome[N]`` and ``rule[N]`` (a position in ``RULES``, or ``NO_RULE``) are int8; the rule's ``value[N]`` and
    ``threshold[N]`` are float64, NaN where no rule decided.
    """

    outcome: npt.NDArray[np.int8]
    rule: npt.NDArray[np.int8]
    value: npt.NDArray[np.float64]
    threshold: npt.NDArray[np.float64]


def statistics_of_rules() -> frozenset[str]:
    """The statistics that rules read."""
    read = (statistics_in(rule.value) | statistics_in(rule.threshold) for rule in RULES)
    return frozenset().union(*read)


def statistic_columns(ledger: pa.Table) -> dict[str, npt.NDArray[np.float64]]:
    """The statistics that the table has, as float64 ``[N]``; NaN where not measured."""
    return {name: _floats(ledger, name) for name in ledger.column_names if name in STATISTICS}


def recorded(ledger: pa.Table) -> Decisions:
    """The decisions that the ledger holds. The rule is ``NO_RULE`` where it is one that this version does not have."""
    return Decisions(
        outcome=_positions(ledger, "outcome", OUTCOMES),
        rule=_positions(ledger, "rule", tuple(rule.name for rule in RULES)),
        value=_floats(ledger, "value"),
        threshold=_floats(ledger, "threshold"),
    )


def redecide(
    statistics: Mapping[str, npt.NDArray[np.float64]], before: npt.NDArray[np.int8], config: CurationConfig
) -> Decisions:
    """What the rules say under ``config``, given each row's ``statistics`` and the outcome ``before[N]`` in the ledger.

    A row that failed stays failed, for no rule decided it. Otherwise the first rule that is broken rejects, as in
    :func:`curation.rules.first_failure`; where none is, a row that was kept is kept, and one that was not is ``unknown``.
    """
    rows = len(before)
    rule = np.full(rows, NO_RULE, np.int8)
    value, threshold = np.full(rows, np.nan), np.full(rows, np.nan)
    undecided = before != FAILED
    for position, asked in enumerate(RULES):
        found = evaluate(asked.value, statistics, config)
        limit = evaluate(asked.threshold, statistics, config)
        breaks = undecided & (np.greater(found, limit) if asked.at_most else np.less(found, limit))
        if breaks.any():
            rule[breaks] = position
            value[breaks] = np.broadcast_to(found, rows)[breaks]
            threshold[breaks] = np.broadcast_to(limit, rows)[breaks]
            undecided &= ~breaks
    outcome = np.where(before == KEPT, KEPT, UNKNOWN).astype(np.int8)
    outcome[before == FAILED] = FAILED
    outcome[rule != NO_RULE] = REJECTED
    return Decisions(outcome, rule, value, threshold)


def _floats(ledger: pa.Table, name: str) -> npt.NDArray[np.float64]:
    return np.asarray(ledger[name].to_numpy(), np.float64)


def _positions(ledger: pa.Table, name: str, words: tuple[str, ...]) -> npt.NDArray[np.int8]:
    found = pc.fill_null(pc.index_in(ledger[name], pa.array(words)), NO_RULE)
    return np.asarray(found.to_numpy(), np.int8)
