"""Other thresholds made real: a dataset of what they keep, and a manifest of what only curating again can decide.

Nothing is decoded. What the ledger cannot know (:mod:`curation.what_if`) is not guessed: those clips are listed for a run of
their own.
"""

import copy
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from curation.config import CurationConfig, recorded_config
from curation.effects import leaves
from curation.ledger import read_ledger
from curation.redecide import KEPT, NO_RULE, OUTCOMES, UNKNOWN
from curation.rules import RULES
from curation.sources import Clip, write_manifest
from curation.what_if import WhatIf, what_if
from faceloom.config import load
from faceloom.errors import UserError
from shards.repack import Repacked, open_source, rewrite
from shards.storage import make_folder, write_atomic


@dataclass(frozen=True)
class Recompute:
    """The clips that must be curated again: their manifest, and the command that decides them under the same settings."""

    clips: int
    manifest: Path
    command: str


@dataclass(frozen=True)
class Applied:
    """The dataset that was made, what it rests on, and what is left to curate again, if anything."""

    made: Repacked
    result: WhatIf
    recompute: Recompute | None


def apply(dataset: Path, out: Path, source: str | None = None, overrides: Sequence[str] = ()) -> Applied:
    """Write the dataset ``out`` that ``dataset`` is under other thresholds; ``dataset`` itself is never touched.

    The settings are those of ``source``, or else of ``dataset``, with the ``overrides``. ``out`` has a row for every row of
    ``dataset``, decided again. A clip that must be curated again is listed in ``OUT.recompute.parquet``, beside ``out``; no
    sample of it is in ``out``. ``OUT.recompute.yaml`` has the settings for that.

    Raises :class:`UserError` if no threshold differs, if a setting differs that changes the samples themselves, if nothing
    would be kept, or if ``dataset`` or ``out`` cannot be used.
    """
    record, _ = open_source(dataset, out)
    was = recorded_config(record.config)
    now = load(CurationConfig, source, overrides, base=was)
    ledger = read_ledger(dataset)
    result = what_if(ledger, was, now)
    _refuse(dataset, result)
    decided = redecided(ledger, result)
    if "kept" not in decided["outcome"].unique().to_pylist():
        raise UserError(
            f"no sample of {dataset} would be kept, and {result.count(result.recompute)} clips would have to be curated "
            "again; see why with: faceloom what-if"
        )
    # Before the dataset, whose appearance ends the work.
    recompute = _write_recompute(ledger, result, now, out)
    return Applied(rewrite(dataset, out, decided, _with_changes(record.config, result)), result, recompute)


def _refuse(dataset: Path, result: WhatIf) -> None:
    kinds = {each.change.effect.kind: each.change for each in result.affected}
    if "sample" in kinds:
        change = kinds["sample"]
        raise UserError(
            f"{change.setting}: {change.before} → {change.now} changes the samples themselves; curate the manifest again "
            f"with it, or leave it as {dataset} has it: --set {change.setting}={change.before}"
        )
    if not kinds.keys() - {"nothing"}:
        raise UserError(
            f"these are the settings that {dataset} was decided under; name what is to differ, "
            "such as --set motion.max_yaw_deg=35"
        )


def redecided(ledger: pa.Table, result: WhatIf) -> pa.Table:
    """The ledger as ``result`` decides it, without the statistics that are stale.

    All rows of a clip that must be curated again are without a sample, so that no sample is made twice.
    """
    now, rows = result.now, len(ledger)
    outcome = np.where((now.outcome == KEPT) & result.recompute, UNKNOWN, now.outcome)
    decided = now.rule != NO_RULE
    columns: dict[str, pa.Array] = {
        "outcome": pa.array(OUTCOMES).take(pa.array(outcome)),
        "rule": pa.array([rule.name for rule in RULES]).take(pa.array(now.rule, mask=~decided)),
        "value": pa.array(now.value, mask=~decided),
        "threshold": pa.array(now.threshold, mask=~decided),
    }
    stale = {name for each in result.affected for name in each.change.effect.stale}
    for name in stale.intersection(ledger.column_names):
        gone = np.zeros(rows, bool)
        for each in result.affected:
            if name in each.change.effect.stale:
                gone |= each.rows
        columns[name] = pc.if_else(pa.array(~gone), ledger[name], None)
    for name, column in columns.items():
        field = ledger.schema.field(name)
        ledger = ledger.set_column(ledger.schema.get_field_index(name), field, column.cast(field.type))
    return ledger


def _with_changes(config: Mapping[str, Any], result: WhatIf) -> dict[str, Any]:
    """The record's configuration with the settings that decide something changed."""
    tree: dict[str, Any] = copy.deepcopy(dict(config))
    for each in result.affected:
        if each.change.effect.kind != "nothing":
            section, _, name = each.change.setting.rpartition(".")
            tree.setdefault(section, {})[name] = each.change.now
    return tree


def _write_recompute(ledger: pa.Table, result: WhatIf, config: CurationConfig, out: Path) -> Recompute | None:
    """Manifest and settings of the clips to curate again; None, and no file, if there are none."""
    rows = ledger.filter(pa.array(result.recompute & _of_themselves(ledger)))
    if not len(rows):
        return None
    manifest, settings = (out.with_name(f"{out.name}.recompute.{kind}") for kind in ("parquet", "yaml"))
    try:
        make_folder(out.absolute().parent)
        write_manifest(_clips(rows), manifest)
        write_atomic(settings, yaml.safe_dump({"curate": _other_than_default(config)}, sort_keys=False).encode())
    except OSError as error:
        raise UserError(f"cannot write {manifest}: {error.strerror}; choose another --out, or make room") from None
    again = ["--manifest", manifest, "--config", settings, "--out", out.with_name(f"{out.name}-recomputed")]
    return Recompute(len(rows), manifest, shlex.join(["faceloom", "curate", *map(str, again)]))


def _of_themselves(ledger: pa.Table) -> npt.NDArray[np.bool_]:
    """Rows of the manifest, and further windows of clips that a repacked dataset does not have."""
    if "of_clip" not in ledger.column_names:
        return np.ones(len(ledger), bool)
    present = pc.is_in(ledger["of_clip"], ledger["clip_id"].combine_chunks(), skip_nulls=True)
    return np.asarray(pc.invert(present).to_numpy(), bool)


def _clips(rows: pa.Table) -> Iterator[Clip]:
    names = [field.name for field in fields(Clip) if field.name in rows.column_names]
    for batch in rows.select(names).to_batches():
        for row in batch.to_pylist():
            yield Clip(**row)


def _other_than_default(config: CurationConfig) -> dict[str, Any]:
    defaults = leaves(CurationConfig().model_dump(mode="json"))
    found = leaves(config.model_dump(mode="json"))
    return _nested((path, value) for path, value in found.items() if value != defaults[path])


def _nested(settings: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in settings:
        *sections, name = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value
    return tree
