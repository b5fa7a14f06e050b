"""What other thresholds would have decided, from the ledger alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.config import CurationConfig, recorded_config
from curation.effects import EFFECTS, Change, changes
from curation.expressions import Less, Number, evaluate, settings_in, statistics_in, where
from curation.ledger import read_ledger
from curation.redecide import (
    KEPT,
    NO_RULE,
    OUTCOMES,
    REJECTED,
    UNKNOWN,
    Decisions,
    recorded,
    redecide,
    statistic_columns,
    statistics_of_rules,
)
from curation.rules import RULES, Rule
from faceloom.config import load
from shards.dataset import DatasetRecord

Columns = dict[str, npt.NDArray[np.float64]]
Flags = npt.NDArray[np.bool_]
Label = tuple[str, str]
"""An outcome and, where it is ``rejected``, the rule."""


@dataclass(frozen=True)
class Affected:
    """A setting that differs, and the rows ``[N]`` whose recorded statistics it makes stale."""

    change: Change
    rows: Flags


@dataclass(frozen=True)
class WhatIf:
    """A ledger's N rows as they were decided and as they would be.

    ``clip[N]`` marks the rows of the manifest; counts are over these. ``measured[N]``: every statistic that a rule asks for
    is known. ``other_window[N]``: rejected now for what its recorded window shows, while the clip has further windows that
    may pass, of which the ledger holds nothing. ``recompute[N]``: rows of clips that curating again may keep, and the ledger
    cannot: one of their rows is ``unknown``, or none is kept and one is in ``other_window``.
    """

    affected: tuple[Affected, ...]
    before: Decisions
    now: Decisions
    clip: Flags
    measured: Flags
    other_window: Flags
    recompute: Flags

    @cached_property
    def would_be_kept(self) -> Flags:
        """Rows that pass every rule and lack their sample only."""
        return np.asarray((self.now.outcome == UNKNOWN) & self.measured)

    @cached_property
    def not_measured(self) -> Flags:
        """Rows that break no rule so far, and of which a statistic is missing."""
        return np.asarray((self.now.outcome == UNKNOWN) & ~self.measured)

    def count(self, rows: Flags) -> int:
        """How many clips of the manifest are among ``rows``."""
        return int(np.count_nonzero(rows & self.clip))

    def funnel(self, decisions: Decisions) -> dict[Label, int]:
        """Clips of the manifest by outcome and rule: kept, every rule in its order, then what else there is."""
        counts = _counts(decisions, self.clip)
        rules = [("rejected", rule.name) for rule in RULES]
        rest = [key for key in (("rejected", ""), ("failed", ""), ("unknown", "")) if key in counts]
        return {key: counts.get(key, 0) for key in [("kept", ""), *rules, *rest]}

    def moves(self) -> dict[tuple[Label, Label], int]:
        """Clips of the manifest that are decided otherwise, by what they were and would be; the largest group first."""
        was, now = _codes(self.before), _codes(self.now)
        pairs, counts = np.unique((was * _CODES + now)[self.clip & (was != now)], return_counts=True)
        largest = np.argsort(-counts, kind="stable")
        return {(_label(pairs[i] // _CODES), _label(pairs[i] % _CODES)): int(counts[i]) for i in largest}


def what_if(ledger: pa.Table, was: CurationConfig, config: CurationConfig) -> WhatIf:
    """Decide a ledger that was decided under ``was`` again under ``config``.

    Statistics that a changed setting makes stale (:mod:`curation.effects`) count as not measured, and a clip that was kept as
    one that has no sample. ``ledger`` needs those of the columns of :func:`ledger_columns` that it was written with.
    """
    before, statistics = recorded(ledger), statistic_columns(ledger)
    affected = tuple(Affected(c, _rows_affected(c, statistics, was, config, len(ledger))) for c in changes(was, config))
    fresh, base = dict(statistics), before.outcome.copy()
    for each in affected:
        for name in each.change.effect.stale & fresh.keys():
            fresh[name] = np.where(each.rows, np.nan, fresh[name])
        base[each.rows & (base == KEPT)] = UNKNOWN
    now = redecide(fresh, base, config)
    other_window = _other_window(before, now, fresh, was, config)
    return WhatIf(
        affected,
        before,
        now,
        clip=rows_of_manifest(ledger),
        measured=_measured(fresh, needed_statistics(statistics, before.outcome == KEPT), len(ledger)),
        other_window=other_window,
        recompute=_recompute(now, other_window, _clip_numbers(ledger)),
    )


def what_if_of(dataset: Path, source: str | None = None, overrides: Sequence[str] = ()) -> WhatIf:
    """:func:`what_if` of a dataset folder: under the configuration ``source``, or else its own, with the ``overrides``.

    Of a dataset that is not finished, the clips decided so far. Raises :class:`UserError` if there is no dataset or no
    such configuration.
    """
    was = recorded_config(DatasetRecord.load(dataset).config)
    now = load(CurationConfig, source, overrides, base=was)
    return what_if(read_ledger(dataset, ledger_columns()), was, now)


def ledger_columns() -> list[str]:
    """The columns of a ledger that :func:`what_if` reads."""
    asked = [effect.only for effect in EFFECTS if effect.only is not None]
    read = statistics_of_rules().union(*(statistics_in(less.low) | statistics_in(less.high) for less in asked))
    return ["clip_id", "of_clip", "outcome", "rule", "value", "threshold", *sorted(read)]


def _rows_affected(
    change: Change, statistics: Columns, was: CurationConfig, config: CurationConfig, rows: int
) -> Flags:
    effect = change.effect
    if effect.only is None:
        return np.full(rows, bool(effect.stale))
    return _holds(effect.only, statistics, was, rows) | _holds(effect.only, statistics, config, rows)


def _holds(less: Less, statistics: Columns, config: CurationConfig, rows: int) -> Flags:
    return np.broadcast_to(np.equal(evaluate(where(less, 1, 0), statistics, config), 1), rows)


def rows_of_manifest(ledger: pa.Table) -> Flags:
    """Which rows are clips of the manifest, and not further windows of one; bool ``[N]``."""
    if "of_clip" not in ledger.column_names:
        return np.ones(len(ledger), bool)
    return np.asarray(pc.is_null(ledger["of_clip"]).to_numpy(), bool)


def _clip_numbers(ledger: pa.Table) -> npt.NDArray[np.int64]:
    """A number for each row that all rows of one clip of the manifest share."""
    if rows_of_manifest(ledger).all():
        return np.arange(len(ledger))
    names = pc.coalesce(ledger["of_clip"], ledger["clip_id"]).combine_chunks().dictionary_encode()
    return np.asarray(names.indices.to_numpy(), np.int64)


def _recompute(now: Decisions, other_window: Flags, clips: npt.NDArray[np.int64]) -> Flags:
    def in_any_row(rows: Flags) -> Flags:
        return np.asarray(np.bincount(clips, weights=rows)[clips] > 0, bool)

    return in_any_row(now.outcome == UNKNOWN) | (in_any_row(other_window) & ~in_any_row(now.outcome == KEPT))


def needed_statistics(statistics: Columns, kept: Flags) -> list[str]:
    """The statistics without which a clip is not measured to its end: of those of the rules, the ones that every ``kept[N]``
    row was recorded with.
    """
    recorded_with = (name for name in statistics_of_rules() if name in statistics)
    return [name for name in recorded_with if not np.isnan(statistics[name][kept]).any()]


def _measured(fresh: Columns, needed: Sequence[str], rows: int) -> Flags:
    result = np.ones(rows, bool)
    for name in needed:
        result &= ~np.isnan(fresh[name])
    return result


def _other_window(
    before: Decisions, now: Decisions, statistics: Columns, was: CurationConfig, config: CurationConfig
) -> Flags:
    """Rows that are rejected for their recorded window, where another of the clip's windows may pass.

    That no window passed is known of a clip that was rejected for its window, unless a rule about windows now asks for less.
    """
    about_windows = np.array([rule.stage == "window" for rule in RULES] + [False])  # the last is NO_RULE's
    none_passed = (before.outcome == REJECTED) & about_windows[before.rule]
    known = np.zeros_like(none_passed) if _asks_for_less(statistics, was, config) else none_passed
    several = np.greater(statistics.get("windows", np.nan), 1)
    return np.asarray((now.outcome == REJECTED) & about_windows[now.rule] & several & ~known)


def _asks_for_less(statistics: Columns, was: CurationConfig, config: CurationConfig) -> bool:
    """Whether any rule about windows leaves any row more room under ``config``."""
    changed = {change.setting for change in changes(was, config)}
    for rule in RULES:
        read = settings_in(rule.value) | settings_in(rule.threshold)
        if rule.stage == "window" and changed & read:
            gained = np.greater(_room(rule, statistics, config), _room(rule, statistics, was))
            if gained.any():
                return True
    return False


def _room(rule: Rule, statistics: Columns, config: CurationConfig) -> Number:
    value, threshold = evaluate(rule.value, statistics, config), evaluate(rule.threshold, statistics, config)
    return threshold - value if rule.at_most else value - threshold


_CODES = len(OUTCOMES) * (len(RULES) + 1)


def _codes(decisions: Decisions) -> npt.NDArray[np.int64]:
    """Outcome and rule as one number below ``_CODES``."""
    return decisions.outcome.astype(np.int64) * (len(RULES) + 1) + decisions.rule - NO_RULE


def _label(code: np.integer[Any]) -> Label:
    outcome, rule = divmod(int(code), len(RULES) + 1)
    return OUTCOMES[outcome], RULES[rule + NO_RULE].name if rule else ""


def _counts(decisions: Decisions, rows: Flags) -> dict[Label, int]:
    found = np.bincount(_codes(decisions)[rows])
    return {_label(code): int(found[code]) for code in np.flatnonzero(found)}
