"""The page put together: one HTML file with its style, its scripts and all they show; it asks no network for anything."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import faceloom
from curation.audit_page.contents import (
    charts_and_controls,
    failures,
    licences,
    otherwise_decided,
    packed_rows,
    rule_texts,
    source_text,
    strata_json,
)
from curation.audit_page.examples import Example, choose
from curation.audit_page.previews import Preview, kept_preview, source_previews
from curation.audit_page.strata import MOST_ROWS, stratify
from curation.config import CurationConfig, recorded_config
from curation.given_files import check_writable
from curation.ledger import read_ledger
from curation.redecide import KEPT, NO_RULE, recorded, statistic_columns
from curation.sources import Clip
from curation.what_if import rows_of_manifest
from faceloom.errors import UserError
from faceloom.page.html import assemble
from shards.dataset import LEDGER_FOLDER, DatasetRecord
from shards.storage import write_atomic

_SCRIPTS = (
    *("unpack.js", "expressions.js", "decide.js", "state.js", "charts.js"),
    *("summary.js", "funnel.js", "cards.js", "changes.js", "examples.js", "tables.js", "page.js"),
)
_DATASETS_SHOWN = 40
_CLIP = [field.name for field in fields(Clip)]


@dataclass(frozen=True)
class Written:
    """What a page came to. ``packed`` of the ledger's ``rows`` are in it; those that failed never are, and of the others a
    sample if it is ``sampled``.
    """

    rows: int
    packed: int
    sampled: bool
    previews: int
    bytes: int


def write_page(
    dataset: Path, out: Path, say: Callable[[str], None] = lambda _: None, most_rows: int = MOST_ROWS
) -> Written:
    """Write the page of ``dataset`` to ``out``. ``say`` is told what is being done.

    Of a ledger with more than ``most_rows`` rows, the page decides a sample again. Raises :class:`UserError` when there is no
    dataset or no row in its ledger, when a fragment cannot be read, or when ``out`` cannot be written.
    """
    check_writable(out)
    record = DatasetRecord.load(dataset)
    ledger = read_ledger(dataset)
    if not len(ledger):
        raise UserError(
            f"the ledger of {dataset} has no rows yet; finish a block with the same `faceloom curate` command"
        )
    say(f"{len(ledger):,} rows")
    config = recorded_config(record.config)
    contents, examples = _contents(dataset, record, ledger, config, most_rows)
    contents["examples"] = _examples(dataset, ledger, examples, say)
    page = render(contents)
    try:
        write_atomic(out.absolute(), page)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name a file in an existing folder with --out") from None
    packed = contents["packed"]["rows"] - len(examples)
    failed = pc.sum(pc.equal(ledger["outcome"], "failed")).as_py()
    return Written(
        rows=len(ledger),
        packed=packed,
        sampled=packed < len(ledger) - failed,
        previews=sum(bool(example["video"]) for example in contents["examples"]),
        bytes=len(page),
    )


def render(contents: Mapping[str, Any]) -> bytes:
    """The HTML of a page that shows ``contents``."""
    return assemble("Faceloom audit", files("curation.audit_page") / "assets", _SCRIPTS, contents)


def _contents(
    dataset: Path, record: DatasetRecord, ledger: pa.Table, config: CurationConfig, most_rows: int
) -> tuple[dict[str, Any], list[Example]]:
    decisions = recorded(ledger)
    columns = statistic_columns(ledger)
    names, positions = _datasets(ledger)
    strata = stratify(positions, decisions, ~rows_of_manifest(ledger), most_rows)
    examples = choose(decisions)
    defaults = CurationConfig().model_dump(mode="json")
    contents: dict[str, Any] = {
        "name": dataset.absolute().name,
        "command": str(dataset),
        "version": faceloom.__version__,
        "complete": record.complete,
        "written": _written(dataset),
        "clips": record.manifest.clips,
        "fingerprint": record.config_fingerprint,
        "rules": rule_texts(),
        **charts_and_controls(columns, decisions.outcome == KEPT, config),
        "config": _differences(defaults, config.model_dump(mode="json")),
        "datasets": names,
        "strata": strata_json(strata),
        "packed": packed_rows(ledger, columns, strata, [example.row for example in examples]),
        "failures": failures(ledger),
        "licences": licences(ledger),
        "otherwise": otherwise_decided(columns, decisions.outcome, decisions.rule, config),
    }
    return contents, examples


def _datasets(ledger: pa.Table) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The names of the largest datasets, the rest as one, and each row's position among them."""
    counts = ledger.group_by("dataset").aggregate([("dataset", "count")]).to_pylist()
    names = [row["dataset"] for row in sorted(counts, key=lambda row: (-row["dataset_count"], row["dataset"]))]
    if len(names) > _DATASETS_SHOWN:
        rest = len(names) - _DATASETS_SHOWN + 1
        names = [*names[: _DATASETS_SHOWN - 1], f"{rest} smaller datasets"]
    found = pc.fill_null(pc.index_in(ledger["dataset"], pa.array(names, pa.string())), len(names) - 1)
    return names, np.asarray(found.to_numpy(), np.int64)


def _written(dataset: Path) -> str:
    """When the newest ledger fragment was written, UTC, to the minute."""
    newest = max((path.stat().st_mtime for path in (dataset / LEDGER_FOLDER).glob("part-*.parquet")), default=0.0)
    return datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%d %H:%M")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the tree ``now`` that is not as in ``before``."""
    found: dict[str, Any] = {}
    for key, value in now.items():
        if isinstance(value, Mapping):
            if inside := _differences(before[key], value):
                found[key] = inside
        elif value != before[key]:
            found[key] = value
    return found


def _examples(
    dataset: Path, ledger: pa.Table, examples: Sequence[Example], say: Callable[[str], None]
) -> list[dict[str, Any]]:
    rows = ledger.take(pa.array([example.row for example in examples], pa.int64())).to_pylist()
    parts = _parts(dataset)
    from_sources = source_previews(
        [Clip(**{name: row[name] for name in _CLIP if name in row}) for row in rows if row["outcome"] != "kept"]
    )
    made = []
    for number, (example, row) in enumerate(zip(examples, rows, strict=True), 1):
        if row["outcome"] == "kept":
            preview = kept_preview(dataset, parts(example.row), row["clip_id"])
        else:
            preview = next(from_sources)
        made.append(_example(example, row, preview))
        say(f"{number} of {len(examples)} previews")
    return made


def _parts(dataset: Path) -> Callable[[int], int]:
    """The part that a row of the whole ledger is from."""
    fragments = sorted((dataset / LEDGER_FOLDER).glob("part-*.parquet"))
    ends = np.cumsum([pq.read_metadata(fragment).num_rows for fragment in fragments])
    numbers = [int(fragment.stem.removeprefix("part-")) for fragment in fragments]
    return lambda row: numbers[int(np.searchsorted(ends, row, side="right"))]


def _example(example: Example, row: Mapping[str, Any], preview: Preview) -> dict[str, Any]:
    return {
        "rule": example.rule,
        "clip": row["clip_id"],
        "dataset": row["dataset"],
        "source": source_text(row["source_key"], row["t0_s"], row["t1_s"]),
        "licence": row["licence"],
        "value": None if example.rule == NO_RULE else row["value"],
        "threshold": None if example.rule == NO_RULE else row["threshold"],
        "video": None if preview.video is None else base64.b64encode(preview.video).decode("ascii"),
        "note": preview.note,
    }
