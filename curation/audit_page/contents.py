"""Everything a page shows of a ledger, as JSON: counts by stratum, histograms, controls, packed rows, failures, licences."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.audit_page.controls import control, settings_read
from curation.audit_page.histograms import Histogram, histogram, round_step
from curation.audit_page.limits import Limit, describe, limits
from curation.audit_page.packing import pack_columns, pack_json
from curation.audit_page.strata import Stratum
from curation.config import CurationConfig
from curation.effects import effect_of
from curation.expressions import Expression, Setting, as_json, evaluate, settings_in, statistic, statistics_in, where
from curation.redecide import redecide
from curation.rules import RULES, rules_as_json
from curation.statistics import STATISTICS
from curation.what_if import Columns, ledger_columns, needed_statistics

_CAUSES_SHOWN = 50
_MESSAGES_SHOWN = 3
_RANGE_STEPS = 200


@dataclass(frozen=True)
class _Chart:
    value: Expression
    limits: tuple[Limit, ...]
    histogram: Histogram | None


def rule_texts() -> list[dict[str, Any]]:
    """The rules as JSON, each with what it asks for in words that a reader of the documentation knows."""
    return [
        made
        | {
            "asks": f"{describe(rule.value)} {'≤' if rule.at_most else '≥'} {describe(rule.threshold)}",
            "reads": sorted(statistics_in(rule.value) | statistics_in(rule.threshold)),
        }
        for made, rule in zip(rules_as_json(), RULES, strict=True)
    ]


def charts_and_controls(columns: Columns, kept: npt.NDArray[np.bool_], config: CurationConfig) -> dict[str, Any]:
    """A histogram of every statistic and of what else rules bound, and a control for every setting that moves a limit.

    A control names the charts that show it, first the one whose axis is its own.
    """
    bounds = limits(RULES)
    values = dict.fromkeys([limit.value for limit in bounds] + [statistic(name) for name in columns])
    charts = [
        _chart(value, [limit for limit in bounds if limit.value == value], columns, kept, config) for value in values
    ]
    controls = []
    for path in settings_read(RULES):
        shown = [
            i for i, chart in enumerate(charts) if any(path in settings_in(limit.threshold) for limit in chart.limits)
        ]
        shown.sort(key=lambda i: all(limit.threshold != Setting(path) for limit in charts[i].limits))
        of_rules = [i for i, rule in enumerate(RULES) if path in settings_in(rule.value) | settings_in(rule.threshold)]
        made = control(path, config) | _effect(path) | {"charts": shown, "rules": of_rules}
        if made["kind"] in {"number", "whole"}:
            made |= _range(made, charts[shown[0]] if shown else None, config)
        controls.append(made)
    # First what the ledger can answer for every clip.
    controls.sort(key=lambda made: made["effect"] != "threshold")
    return {"charts": [_chart_json(chart) for chart in charts], "controls": controls}


def _effect(path: str) -> dict[str, Any]:
    """What a change of the setting does to statistics that were recorded under another: see :mod:`curation.effects`."""
    effect = effect_of(path)
    only = None if effect.only is None else as_json(where(effect.only, 1, 0))
    return {"effect": effect.kind, "why": effect.why, "stale": sorted(effect.stale), "only": only}


def _chart(
    value: Expression,
    bounds: Sequence[Limit],
    columns: Columns,
    kept: npt.NDArray[np.bool_],
    config: CurationConfig,
) -> _Chart:
    lines = [float(evaluate(limit.threshold, {}, config)) for limit in bounds]
    values = np.broadcast_to(evaluate(value, columns, config), kept.shape)
    # A share that happens to be 0 or 1 in every clip is still no count.
    countable = all(STATISTICS[name].unit != "share" for name in statistics_in(value))
    return _Chart(value, tuple(bounds), histogram(values, kept, lines, countable))


def _chart_json(chart: _Chart) -> dict[str, Any]:
    read = [STATISTICS[name] for name in sorted(statistics_in(chart.value))]
    return {
        "title": describe(chart.value),
        "unit": read[0].unit if read else "",
        "meaning": "; ".join(one.meaning for one in read),
        "stage": read[-1].stage if read else "",
        "histogram": None if chart.histogram is None else asdict(chart.histogram),
        "limits": [
            {"rule": limit.rule, "at_most": limit.at_most, "threshold": as_json(limit.threshold)}
            for limit in chart.limits
        ],
    }


def _range(made: Mapping[str, Any], chart: _Chart | None, config: CurationConfig) -> dict[str, float]:
    """Where a slider runs: the bounds of the setting, or as far as the histogram that its limit is drawn in."""
    path, value = made["path"], made["value"]
    if made["kind"] == "whole" and {"least", "most"} <= made.keys():
        return {"low": made["least"], "high": made["most"], "step": 1}
    start = 1.0 if value is None else float(value)
    low, high = (0.0, 4 * start) if start > 0 else (4 * start - 1, 1.0)
    if chart is not None and chart.histogram is not None:
        drawn = chart.histogram
        line = next(
            float(evaluate(limit.threshold, {}, config))
            for limit in chart.limits
            if path in settings_in(limit.threshold)
        )
        # The limit as a multiple of the setting: 1 where it is the setting.
        scale = start / line if line and np.isfinite(line) else 1.0
        bins = len(drawn.kept)
        low, high = sorted((drawn.low * scale, (drawn.low + bins * drawn.step) * scale))
    low, high = (
        max(low, made.get("least", low), made.get("above", low)),
        min(high, made.get("most", high), made.get("below", high)),
    )
    step = round_step((high - low) / _RANGE_STEPS) if high > low else 1.0
    if made["kind"] == "whole":
        low, high, step = float(np.floor(low)), float(np.ceil(high)), max(1.0, np.rint(step))
    return {"low": low, "high": high, "step": step}


def packed_rows(ledger: pa.Table, columns: Columns, strata: Sequence[Stratum], shown: Sequence[int]) -> dict[str, Any]:
    """The rows that the page decides again: those of the strata, one stratum after the other, then the rows ``shown``.

    ``columns`` and ``texts`` are packed; the latter have each row's clip id and source. ``needed`` are the statistics that
    a row must have to be measured to its end.
    """
    read = [name for name in ledger_columns() if name in columns]
    rows = np.concatenate([*(stratum.rows for stratum in strata), np.asarray(shown, np.int64)]).astype(np.int64)
    spans = ledger.select(["clip_id", "source_key", "t0_s", "t1_s"]).take(pa.array(rows)).to_pydict()
    sources = [source_text(*span) for span in zip(spans["source_key"], spans["t0_s"], spans["t1_s"], strict=True)]
    return {
        "rows": len(rows),
        "statistics": read,
        "needed": needed_statistics(columns, pc.equal(ledger["outcome"], "kept").to_numpy()),
        "columns": pack_columns([columns[name][rows] for name in read]),
        "texts": pack_json({"clips": spans["clip_id"], "sources": sources}),
    }


def source_text(source_key: str, t0_s: float, t1_s: float | None) -> str:
    """A clip's source for a reader: its key, and the span if it is not the whole file."""
    if not t0_s and t1_s is None:
        return source_key
    return f"{source_key} [{t0_s:.6g} to {'its end' if t1_s is None else f'{t1_s:.6g}'} s]"


def strata_json(strata: Sequence[Stratum]) -> list[dict[str, Any]]:
    """What the page knows of each stratum; ``rows`` are how many of its rows are packed."""
    return [
        {
            "dataset": one.dataset,
            "outcome": one.outcome,
            "rule": one.rule,
            "further": one.further,
            "size": one.size,
            "rows": len(one.rows),
        }
        for one in strata
    ]


def failures(ledger: pa.Table) -> list[dict[str, Any]]:
    """Causes of failure, most frequent first, each with some clips and what the error said of them."""
    failed = ledger.filter(pc.equal(ledger["outcome"], "failed")).select(
        ["stage", "error", "message", "source_key", "clip_id"]
    )
    groups = failed.group_by(["stage", "error"]).aggregate([("clip_id", "count")]).to_pylist()
    causes = []
    for group in sorted(groups, key=lambda g: (-g["clip_id_count"], str(g["stage"]), str(g["error"])))[:_CAUSES_SHOWN]:
        mask = pc.and_(pc.equal(failed["stage"], group["stage"]), pc.equal(failed["error"], group["error"]))
        told = failed.filter(mask).slice(0, _MESSAGES_SHOWN).to_pylist()
        causes.append(
            {
                "stage": group["stage"],
                "error": group["error"],
                "clips": group["clip_id_count"],
                "told": [
                    {"source": one["source_key"], "clip": one["clip_id"], "message": one["message"]} for one in told
                ],
            }
        )
    return causes


def licences(ledger: pa.Table) -> list[dict[str, Any]]:
    """Clips by licence and outcome, the most frequent licence first."""
    counts = ledger.group_by(["licence", "outcome"]).aggregate([("licence", "count")]).to_pylist()
    found: dict[str, dict[str, Any]] = {}
    for row in counts:
        one = found.setdefault(row["licence"], {"licence": row["licence"], "clips": 0})
        one[row["outcome"]] = row["licence_count"]
        one["clips"] += row["licence_count"]
    return sorted(found.values(), key=lambda one: (-one["clips"], one["licence"]))


def otherwise_decided(
    columns: Columns, outcome: npt.NDArray[np.int8], rule: npt.NDArray[np.int8], config: CurationConfig
) -> int:
    """How many rows this version's rules decide otherwise than the ledger says, under the configuration it was made with."""
    now = redecide(columns, outcome, config)
    return int(np.sum((now.outcome != outcome) | (now.rule != rule)))
