"""What became of each sample that was to be encoded: one Parquet fragment a part of the layer, in the order of the base."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faceloom.errors import UserError
from shards.layers import layer_ledger_path
from shards.storage import make_folder, parquet_source, write_atomic
from training.encoder import Encoded

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),  # encoded, failed
        pa.field("stage", pa.string()),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("shard_sample", pa.int32()),  # position in the layer's tar
    ]
)


def write_fragment(root: Path, layer: str, part: int, results: Sequence[Encoded], run: str) -> None:
    """Write the fragment of ``part``, whole or not at all: the part's commit.

    ``run`` identifies what encoded and the base it was encoded from; a resumed run refuses fragments of another.
    """
    positions = iter(range(len(results)))
    rows = []
    for result in results:
        failure = result.failure
        rows.append(
            {
                "clip_id": result.clip_id,
                "outcome": "failed" if failure else "encoded",
                "stage": failure.stage if failure else None,
                "error": failure.error if failure else None,
                "message": failure.message if failure else None,
                "shard_sample": None if failure else next(positions),
            }
        )
    table = pa.Table.from_pylist(rows, SCHEMA.with_metadata({"rows": str(len(rows)), "run": run}))
    path = layer_ledger_path(root, layer, part)
    make_folder(path.parent)
    write_atomic(path, lambda stream: pq.write_table(table, stream, write_page_checksum=True))


def fragment_run(root: Path, layer: str, part: int) -> str:
    """The ``run`` that wrote the fragment of ``part``. Raises :class:`UserError` if it cannot be read."""
    path = layer_ledger_path(root, layer, part)
    try:
        metadata = pq.read_schema(parquet_source(path)).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UserError(_unreadable(path, error)) from None
    return str(metadata.get(b"run", b"").decode())


def read_outcomes(root: Path, layer: str, parts: int) -> pa.Table:
    """The fragments of all ``parts``, of which none may be missing. Raises :class:`UserError` if one cannot be read."""
    tables = [SCHEMA.empty_table()]
    for part in range(parts):
        path = layer_ledger_path(root, layer, part)
        try:
            tables.append(pq.read_table(parquet_source(path)))
        except (pa.ArrowException, OSError) as error:
            raise UserError(_unreadable(path, error)) from None
    return pa.concat_tables(tables)


def _unreadable(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"{path} cannot be read ({reason}); delete it, and the same command encodes its part again"
