"""The ledger: one Parquet row a clip with its outcome and every statistic; one fragment a manifest block.

A clip of the manifest may become several samples. Its row stands for the first; each further one has a row of its own after
it, which is no clip of the manifest: see ``of_clip``.

A fragment is written last of its block, so its presence is what commits the block. It holds nothing that differs from run to
run: what a run cost lies beside it, in ``telemetry/``.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.outcome import Failed, Kept, Outcome, Rejected
from curation.sources import SCHEMA as MANIFEST_SCHEMA
from curation.sources import Clip
from curation.statistics import STATISTICS
from faceloom.errors import UserError
from shards.dataset import LEDGER_FOLDER, ledger_path, part_name
from shards.storage import file_names, make_folder, parquet_sources, write_atomic

SCHEMA = pa.schema(
    [
        *MANIFEST_SCHEMA,
        pa.field("of_clip", pa.string()),
        pa.field("window", pa.int32(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("rule", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("decoder", pa.string()),
        pa.field("shard_sample", pa.int32()),
        *[
            pa.field(s.name, pa.float64(), metadata={"unit": s.unit, "stage": s.stage, "meaning": s.meaning})
            for s in STATISTICS.values()
        ],
    ]
)
TELEMETRY_FOLDER = "telemetry"
TELEMETRY_SCHEMA = pa.schema(
    [("clip_id", pa.string()), ("stage", pa.string()), ("wall_s", pa.float64()), ("cpu_s", pa.float64())]
)


@dataclass(frozen=True)
class Decision:
    """What became of one clip, and what it cost (seconds by stage), for one ledger and one telemetry row.

    ``window`` counts the windows of a clip of the manifest from 0. Those from 1 on are clips of their own, with a span of
    their own, and name the clip of the manifest in ``of_clip``.
    """

    clip: Clip
    outcome: Outcome
    statistics: dict[str, float] = field(default_factory=dict)
    decoder: str | None = None
    wall_s: dict[str, float] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    of_clip: str | None = None
    window: int = 0
    worn: bool = False
    """Whether the worker has grown beyond its ``recycle_mib``; for the engine, and in no file."""
    retries: int = 0
    """How often fetching its source was tried again; for metrics, and in no file."""
    traceback: str | None = None
    """Where it failed; for the log, and in no file of the dataset."""


def row(decision: Decision, shard_sample: int | None) -> dict[str, Any]:
    """The ledger row of a decision; ``shard_sample`` is a kept clip's position in its shard."""
    clip, outcome = decision.clip, decision.outcome
    name = {Kept: "kept", Rejected: "rejected", Failed: "failed"}[type(outcome)]
    return {
        "clip_id": clip.clip_id,
        **vars(clip),
        "of_clip": decision.of_clip,
        "window": decision.window,
        "outcome": name,
        **vars(outcome),
        "decoder": decision.decoder,
        "shard_sample": shard_sample,
        **decision.statistics,
    }


def write_fragment(root: Path, part: int, decisions: Sequence[Decision], run: str) -> None:
    """Write the ledger fragment of block ``part``, whole or not at all: the block's commit.

    ``run`` is the configuration fingerprint of the run; a resumed run refuses fragments of another.
    """
    positions = iter(range(len(decisions)))
    rows = [row(d, next(positions) if isinstance(d.outcome, Kept) else None) for d in decisions]
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({"rows": str(len(rows)), "run": run}))
    _write(ledger_path(root, part), table)


def write_telemetry(root: Path, part: int, decisions: Sequence[Decision]) -> None:
    """Write what each stage of each clip of block ``part`` cost; best read with any Parquet tool."""
    rows = [
        {"clip_id": d.clip.clip_id, "stage": stage, "wall_s": wall, "cpu_s": d.cpu_s.get(stage, 0.0)}
        for d in decisions
        for stage, wall in d.wall_s.items()
    ]
    _write(root / TELEMETRY_FOLDER / f"{part_name(part)}.parquet", pa.Table.from_pylist(rows, TELEMETRY_SCHEMA))


def committed(root: Path, blocks: int) -> set[int]:
    """The blocks that have a fragment."""
    names = file_names(root / LEDGER_FOLDER)
    return {block for block in range(blocks) if ledger_path(root, block).name in names}


def read_ledger(root: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All fragments of a dataset, in manifest order; an empty table when there is none yet.

    Of ``columns``, those that the ledger was written with. Raises :class:`UserError` naming a fragment that cannot be read.
    """
    names = list(columns) if columns else None
    tables = []
    for fragment, source in parquet_sources(sorted((root / LEDGER_FOLDER).glob("part-*.parquet"))):
        try:
            # Half the time of pq.read_table, which counts with thousands of them.
            with pq.ParquetFile(source) as file:
                tables.append(file.read(columns=names))
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"{fragment} cannot be read ({error}); delete it and run the same `faceloom curate` command again: "
                "its block is decided anew"
            ) from None
    return (
        pa.concat_tables(tables)
        if tables
        else SCHEMA.empty_table().select([name for name in names or SCHEMA.names if name in SCHEMA.names])
    )


def manifest_rows(ledger: pa.Table) -> pa.Table:
    """The rows of the manifest's clips, without those of their further windows; all, of a ledger that knows of none."""
    if "of_clip" not in ledger.column_names:
        return ledger
    return ledger.filter(pc.is_null(ledger["of_clip"]))


def _write(path: Path, table: pa.Table) -> None:
    make_folder(path.parent)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    write_atomic(path, buffer.getvalue())
