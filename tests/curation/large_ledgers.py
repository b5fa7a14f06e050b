"""Ledgers of made-up statistics, as large as wanted, decided as a run decides."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation.audit_page.limits import limits
from curation.config import CurationConfig
from curation.expressions import evaluate, statistics_in
from curation.ledger import SCHEMA
from curation.redecide import FAILED, KEPT, OUTCOMES, REJECTED, redecide
from curation.rules import RULES
from curation.statistics import STATISTICS, Stage
from shards.dataset import LEDGER_FOLDER, DatasetRecord, ManifestSummary, ledger_path
from shards.storage import make_folder

STAGES: tuple[Stage, ...] = ("probe", "census", "track", "window", "flow")
_FAILED_SHARE = 0.02


def made_up_ledger(rows: int, seed: int = 0, datasets: int = 3, all_statistics: bool = False) -> pa.Table:
    """A ledger under the default configuration; each rule rejects some.

    Measuring ends after the stage in which a rule rejects, unless ``all_statistics`` are asked for; some clips fail.
    """
    rng = np.random.default_rng(seed)
    columns = _statistics(rng, rows)
    config = CurationConfig()
    decided = redecide(columns, np.full(rows, KEPT, np.int8), config)
    outcome, rule = decided.outcome.copy(), decided.rule
    fails = rng.random(rows) < _FAILED_SHARE
    outcome[fails] = FAILED
    stages = np.array([STAGES.index(one.stage) for one in RULES])
    last = np.where(rule >= 0, stages[rule], len(STAGES) - 1)
    if all_statistics:
        last[:] = STAGES.index("window")
        last[outcome == KEPT] = len(STAGES) - 1
    last[fails] = np.minimum(last[fails], rng.integers(-1, len(STAGES), rows)[fails])
    for name, column in columns.items():
        column[last < STAGES.index(STATISTICS[name].stage)] = np.nan

    rejected = outcome == REJECTED
    names = np.array([one.name for one in RULES])
    keys = [f"talk/{i:07d}.mp4" for i in range(rows)]
    of = rng.integers(0, datasets, rows)
    values: dict[str, object] = {
        "clip_id": [f"{i:016x}" for i in rng.permutation(rows)],
        "dataset": [f"set-{n}" for n in of],
        "source_key": keys,
        "path": keys,
        "t0_s": np.zeros(rows),
        "licence": np.where(of == 0, "CC-BY-4.0", "research only"),
        "window": np.zeros(rows, np.int32),
        "outcome": np.array(OUTCOMES)[outcome],
        "rule": pa.array(names[rule], mask=~rejected),
        "value": pa.array(decided.value, mask=~rejected),
        "threshold": pa.array(decided.threshold, mask=~rejected),
        "stage": pa.array(np.full(rows, "probe"), mask=~fails),
        "error": pa.array(np.where(rng.random(rows) < 0.8, "TruncatedVideoError", "crash"), mask=~fails),
        "message": pa.array(np.full(rows, "it is cut short"), mask=~fails),
        **{name: pa.array(column, mask=np.isnan(column)) for name, column in columns.items()},
    }
    arrays = [
        pa.array(values[field.name], field.type) if field.name in values else pa.nulls(rows, field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _statistics(rng: np.random.Generator, rows: int) -> dict[str, npt.NDArray[np.float64]]:
    """Values of every statistic: those that a rule bounds mostly pass it, and now and then lie far beyond."""
    config = CurationConfig()
    columns = {name: rng.gamma(4.0, 1.0, rows) for name in STATISTICS}
    for limit in limits(RULES):
        (name,) = statistics_in(limit.value)
        threshold = float(evaluate(limit.threshold, {}, config))
        if threshold == 0:
            columns[name] = (rng.random(rows) < 0.02).astype(np.float64)
        elif limit.at_most:
            columns[name] = threshold * rng.gamma(2.0, 0.2, rows)
        else:
            columns[name] = threshold * (0.8 + rng.gamma(2.0, 1.0, rows))
    columns["pitch_median_deg"] *= rng.choice([-1, 1], rows)
    columns["windows"] = np.rint(columns["windows"])
    return columns


def write_ledger(root: Path, table: pa.Table, fragment_rows: int = 1024, config: CurationConfig | None = None) -> Path:
    """A dataset folder with this ledger and no samples, by its record curated under ``config`` or the defaults."""
    make_folder(root / LEDGER_FOLDER)
    starts = range(0, len(table), fragment_rows)
    for part, start in enumerate(starts):
        pq.write_table(table.slice(start, fragment_rows), ledger_path(root, part))
    DatasetRecord(
        complete=True,
        config=(config or CurationConfig()).model_dump(mode="json"),
        config_fingerprint="0" * 64,
        fingerprints={},
        licences=("CC-BY-4.0",),
        manifest=ManifestSummary(sha256="", clips=len(table), blocks=len(starts), block_clips=fragment_rows),
    ).save(root)
    return root
