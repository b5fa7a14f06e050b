"""The whole story of one clip: where it is from, what every rule asked of it, what it cost, and where its sample lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from curation.config import CurationConfig, recorded_config
from curation.expressions import evaluate
from curation.rules import RULES
from curation.sources import SCHEMA as MANIFEST_SCHEMA
from curation.statistics import STATISTICS
from curation.views import views
from faceloom.errors import UserError
from shards.dataset import DatasetRecord, tar_path
from shards.ustar import BLOCK, padding

_WINDOW = ("clip_id", "window", "t0_s", "t1_s", "outcome", "rule", "value", "threshold")
_OUTCOME = ("outcome", "rule", "value", "threshold", "stage", "error", "message")


@dataclass(frozen=True)
class Asked:
    """What one rule asked of the clip.

    ``verdict`` is ``passed``, ``failed`` or ``not reached``: then the clip was not measured that far, and ``value`` and
    ``margin`` are None. ``margin`` is how far the value lies inside the threshold, negative if outside.
    """

    rule: str
    stage: str
    verdict: str
    value: float | None
    at_most: bool
    threshold: float | None
    margin: float | None


@dataclass(frozen=True)
class Lies:
    """Where a layer's members of the sample lie: ``nbytes`` from ``offset`` on in the tar ``file``, headers included."""

    layer: str
    file: str
    position: int
    offset: int
    nbytes: int


@dataclass(frozen=True)
class Story:
    """Everything a dataset knows of one row of its ledger; None and empty stand for what it does not know.

    ``wall_s`` and ``cpu_s`` are seconds by stage, ``windows`` the other windows of the same clip of the manifest, and
    ``made_by`` the fingerprints of configuration and fields, the sha256 of the manifest, and where a dataset that was
    repacked or decided again came from.
    """

    clip: Mapping[str, Any]
    outcome: Mapping[str, Any]
    part: int
    rules: tuple[Asked, ...]
    statistics: Mapping[str, float]
    decoder: str | None
    wall_s: Mapping[str, float]
    cpu_s: Mapping[str, float]
    sample: tuple[Lies, ...]
    windows: tuple[Mapping[str, Any], ...]
    made_by: Mapping[str, Any]


def explain(dataset: Path, clip: str) -> Story:
    """The story of the clip with the id or the source key ``clip``.

    A source key stands for the clip of the manifest, an id for one of its further windows too. Raises :class:`UserError`
    that names the choice if there is no such clip, or more than one.
    """
    record = DatasetRecord.load(dataset)
    tables = views(dataset)
    row, part = _row(tables["ledger"], dataset, clip)
    config = recorded_config(record.config)
    statistics = {name: row[name] for name in STATISTICS if row.get(name) is not None and not isnan(row[name])}
    of_part = pc.field("part") == part
    cost = tables["telemetry"].to_table(filter=of_part & (pc.field("clip_id") == row["clip_id"])).to_pylist()
    members = tables["samples"].to_table(filter=of_part & (pc.field("key") == row["clip_id"])).to_pylist()
    return Story(
        clip={name: row.get(name) for name in (*MANIFEST_SCHEMA.names, "of_clip", "window")},
        outcome={name: row[name] for name in _OUTCOME},
        part=part,
        rules=tuple(_asked(statistics, config)),
        statistics=statistics,
        decoder=row["decoder"],
        wall_s={each["stage"]: each["wall_s"] for each in cost},
        cpu_s={each["stage"]: each["cpu_s"] for each in cost},
        sample=tuple(_lies(dataset, part, members)),
        windows=tuple(_other_windows(tables["ledger"], row)),
        made_by={
            "config": record.config_fingerprint,
            "fields": dict(record.fingerprints),
            "manifest": record.manifest.sha256,
            **{name: record.config[name] for name in ("repacked_from", "redecided_from") if name in record.config},
        },
    )


def span(row: Mapping[str, Any]) -> str:
    """The part of its source that a row of the ledger is about, in words."""
    end = "the end" if row["t1_s"] is None else f"{row['t1_s']:g} s"
    return f"{row['t0_s']:g} s to {end}"


def _row(ledger: ds.Dataset, dataset: Path, clip: str) -> tuple[dict[str, Any], int]:
    is_named = (pc.field("clip_id") == clip) | (pc.field("source_key") == clip)
    try:
        rows = ledger.to_table(filter=is_named).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{error}; see what is damaged with: faceloom verify {dataset}") from None
    found = [row for row in rows if row["clip_id"] == clip] or [row for row in rows if row.get("of_clip") is None]
    if not found:
        raise UserError(
            f"{dataset} has decided no clip {clip}, by id or source key; see which there are with: "
            f"faceloom status {dataset} --clips"
        )
    if len(found) > 1:
        spans = ", ".join(f"{row['clip_id']} ({span(row)})" for row in found)
        raise UserError(f"{clip} is the source of {len(found)} clips of {dataset}; give one by its id: {spans}")
    return found[0], found[0]["part"]


def _asked(statistics: Mapping[str, float], config: CurationConfig) -> list[Asked]:
    answers = []
    for rule in RULES:
        value = float(evaluate(rule.value, statistics, config))
        threshold = float(evaluate(rule.threshold, statistics, config))
        margin = threshold - value if rule.at_most else value - threshold
        verdict = "not reached" if isnan(margin) else "passed" if margin >= 0 else "failed"
        answers.append(
            Asked(rule.name, rule.stage, verdict, _known(value), rule.at_most, _known(threshold), _known(margin))
        )
    return answers


def _lies(dataset: Path, part: int, members: list[dict[str, Any]]) -> list[Lies]:
    layers = dict.fromkeys(member["layer"] for member in members)
    places = []
    for layer in layers:
        own = [member for member in members if member["layer"] == layer]
        start = min(member["offset"] for member in own) - BLOCK
        end = max(member["offset"] + member["nbytes"] + len(padding(member["nbytes"])) for member in own)
        file = str(tar_path(dataset, part, layer).relative_to(dataset))
        places.append(Lies(layer, file, own[0]["sample"], start, end - start))
    return places


def _other_windows(ledger: ds.Dataset, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "of_clip" not in ledger.schema.names:
        return []
    clip = row["of_clip"] or row["clip_id"]
    siblings = (pc.field("clip_id") == clip) | (pc.field("of_clip") == clip)
    rows = ledger.to_table(columns=list(_WINDOW), filter=siblings).to_pylist()
    return [each for each in rows if each["clip_id"] != row["clip_id"]]


def _known(value: float) -> float | None:
    return None if isnan(value) else value
