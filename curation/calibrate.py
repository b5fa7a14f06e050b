"""What a corpus says of its thresholds: percentiles of every statistic over the ledger, and cuts proposed from them.

Over the clips of the manifest, each by the window that was judged. Further windows have no part in it: of those, the ledger
holds only what passed.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.config import CurationConfig, recorded_config
from curation.expressions import Applied, Expression, Measured, Setting, evaluate, nodes, statistics_in
from curation.ledger import manifest_rows, read_ledger
from curation.rules import RULES, Rule
from curation.statistics import NOISE_MARGIN, STATISTICS, Statistic
from faceloom.errors import UserError
from shards.dataset import DatasetRecord

PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)
_FEW = 100
_FAILURE = "a failure"
_DIGITS = 3
"""Significant digits of a proposed cut."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """What a rule asks of a statistic alone: to be at least (or, with ``at_most``, at most) ``threshold`` now.

    ``absolute``: of its absolute value. ``setting`` is the setting that the threshold is, None where it follows from others.
    """

    statistic: str
    setting: str | None
    threshold: float
    at_most: bool
    absolute: bool

    def judged(self, values: Values) -> Values:
        """The values as the rule takes them."""
        return np.abs(values) if self.absolute else values

    def pass_share(self, values: Values) -> float:
        """Share of ``values[N]``, N > 0, that pass."""
        judged = self.judged(values)
        return float(np.mean(judged <= self.threshold if self.at_most else judged >= self.threshold))

    def cut(self, values: Values, quantile: float) -> float | None:
        """The threshold that leaves out the lowest ``quantile`` of ``values[N]``, or a tenth of that at the upper end.

        A lower limit stays clear of the noise. None where the values hardly differ, so that no quantile means anything.
        """
        judged = self.judged(values)
        low, high = np.percentile(judged, [PERCENTILES[0], PERCENTILES[-1]])
        if low == high:
            return None
        if self.at_most:
            return _rounded(float(np.quantile(judged, 1 - quantile / 10)), math.ceil)
        noise = STATISTICS[self.statistic].noise or 0.0
        return _rounded(max(float(np.quantile(judged, quantile)), NOISE_MARGIN * noise), math.floor)


@dataclass(frozen=True)
class Calibrated:
    """One statistic: over how many clips it is known, its percentiles, and its limits with the share that passes each."""

    statistic: Statistic
    clips: int
    percentiles: Mapping[int, float]
    limits: tuple[tuple[Limit, float, float | None], ...]
    """Limit, share of the clips that passes it now, proposed cut."""


@dataclass(frozen=True)
class Calibration:
    """Of a dataset with ``clips`` decided clips of the manifest; ``cuts`` are the proposed settings by dotted name."""

    clips: int
    statistics: tuple[Calibrated, ...]
    cuts: Mapping[str, float]
    config: CurationConfig
    notes: tuple[str, ...]

    def fragment(self) -> dict[str, Any]:
        """The cuts as a configuration file holds them."""
        tree: dict[str, Any] = {}
        for path, value in self.cuts.items():
            section, _, name = path.rpartition(".")
            tree.setdefault(section, {})[name] = value
        return {"curate": tree}


def calibrate(dataset: Path, names: Sequence[str] = (), quantile: float = 0.1) -> Calibration:
    """Percentiles and proposed cuts of the statistics ``names``, or of all.

    Lower limits are proposed at ``quantile``, never below ``NOISE_MARGIN`` times the noise; upper limits leave out a tenth of
    that share. Raises :class:`UserError` for a statistic that does not exist and for a dataset without decided clips.
    """
    unknown = [name for name in names if name not in STATISTICS]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], STATISTICS, n=1, cutoff=0.0)
        raise UserError(f"there is no statistic {unknown[0]!r}; nearest is {nearest[0]}")
    if not 0 < quantile < 0.5:
        raise UserError(
            f"--quantile {quantile:g} must lie between 0 and 0.5: it is the share that a lower limit cuts off"
        )
    record = DatasetRecord.load(dataset)
    chosen = [statistic for statistic in STATISTICS.values() if not names or statistic.name in names]
    config = recorded_config(record.config)
    ledger = read_ledger(dataset, ["of_clip", "outcome", "rule", *(statistic.name for statistic in chosen)])
    ledger = ledger if record.repacked else manifest_rows(ledger)
    if not len(ledger):
        raise UserError(f"{dataset} has no decided clips yet; calibrate when `faceloom curate` has decided some")
    chosen = [statistic for statistic in chosen if statistic.name in ledger.column_names]
    columns = {statistic.name: np.asarray(ledger[statistic.name].to_numpy(), np.float64) for statistic in chosen}
    limits = list(limits_under(config))
    calibrated = tuple(_calibrated(statistic, columns[statistic.name], limits, quantile) for statistic in chosen)
    notes = _notes(ledger, record, calibrated, columns)
    return Calibration(len(ledger), calibrated, _cuts(calibrated), config, tuple(notes))


def limits_under(config: CurationConfig) -> Iterator[Limit]:
    """Every limit on one statistic alone, of every rule, in their order."""
    for rule in RULES:
        yield from _limits_of(rule, config)


def _limits_of(rule: Rule, config: CurationConfig) -> Iterator[Limit]:
    value, absolute = rule.value, False
    if isinstance(value, Applied) and value.operation == "abs":
        (value,), absolute = value.operands, True
    if isinstance(value, Measured):
        if not statistics_in(rule.threshold):
            setting = rule.threshold.path if isinstance(rule.threshold, Setting) else None
            threshold = float(evaluate(rule.threshold, {}, config))
            yield Limit(value.name, setting, threshold, rule.at_most, absolute)
        return
    for node in nodes(value):
        # A multiple of a setting, of which the rule asks for enough: the setting is the statistic's own lower limit.
        ratio = _ratio(node)
        if ratio is not None and not rule.at_most:
            statistic, path = ratio
            yield Limit(statistic, path, float(evaluate(Setting(path), {}, config)), False, False)


def _ratio(node: Expression) -> tuple[str, str] | None:
    """Statistic and setting of ``statistic / setting``."""
    match node:
        case Applied("/", (Measured(name), Setting(path))):
            return name, path
    return None


def _calibrated(statistic: Statistic, column: Values, limits: Sequence[Limit], quantile: float) -> Calibrated:
    values = column[~np.isnan(column)]
    if not len(values):
        return Calibrated(statistic, 0, {}, ())
    found = np.percentile(values, PERCENTILES)
    # Once each: a setting may stand in an expression more than once.
    own = dict.fromkeys(limit for limit in limits if limit.statistic == statistic.name)
    return Calibrated(
        statistic,
        len(values),
        dict(zip(PERCENTILES, map(float, found), strict=True)),
        tuple(
            (limit, limit.pass_share(values), limit.cut(values, quantile) if limit.setting else None) for limit in own
        ),
    )


def _cuts(calibrated: Sequence[Calibrated]) -> dict[str, float]:
    """One value a setting: of several statistics that it limits, the one that cuts least."""
    cuts: dict[str, float] = {}
    for row in calibrated:
        for limit, _, cut in row.limits:
            if limit.setting is not None and cut is not None:
                before = cuts.get(limit.setting, cut)
                cuts[limit.setting] = max(before, cut) if limit.at_most else min(before, cut)
    return cuts


def _notes(
    ledger: pa.Table, record: DatasetRecord, calibrated: Sequence[Calibrated], columns: Mapping[str, Values]
) -> Iterator[str]:
    clips = len(ledger)
    fewest = min((row.clips for row in calibrated if row.clips and row.statistic.stage != "flow"), default=_FEW)
    if fewest < _FEW:
        yield f"some statistics rest on {fewest} clips; below {_FEW}, the outer percentiles are single clips"
    measured_all = bool(record.config.get("run", {}).get("all_statistics"))
    because = pc.if_else(pc.equal(ledger["outcome"], "failed"), _FAILURE, ledger["rule"])
    stages: dict[str, dict[str, int]] = {}
    for row in calibrated:
        if row.statistic.stage not in stages and row.clips < clips and row.statistic.stage != "flow":
            missing = because.filter(pa.array(np.isnan(columns[row.statistic.name])))
            counts = {str(each["values"]): each["counts"] for each in missing.value_counts().to_pylist()}
            stages[row.statistic.stage] = dict(sorted(counts.items(), key=lambda item: -item[1]))
    for stage, ended in stages.items():
        told = ", ".join(f"{rule} ({count})" for rule, count in ended.items())
        known = clips - sum(ended.values())
        note = f"statistics of the {stage} are known of {known} of {clips} clips; the others were ended by {told}"
        if not measured_all and {*ended} != {_FAILURE}:
            note += "; curate with --all-statistics to measure on"
        yield note


def _rounded(value: float, towards: Any) -> float:
    """To three significant digits, in the direction that cuts less."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1)
    # Twice: the product with the unit has digits of its own.
    return float(f"{towards(round(value / unit, 6)) * unit:.{_DIGITS + 3}g}")
