"""What became of each pair of a batch: one Parquet table, written anew whenever a pair is decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from animation.animate import Animation
from animation.pairs import Row
from faceloom.config import differences
from faceloom.errors import UserError
from shards.storage import write_atomic

TABLE = "animations.parquet"

SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("portrait", pa.string(), nullable=False),
        pa.field("driving", pa.string(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),  # animated, failed
        pa.field("stage", pa.string()),  # of a failure: prepare, animate
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("frames", pa.int32()),
        pa.field("fps", pa.int32()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sound", pa.bool_()),
        pa.field("stitched", pa.bool_()),
        pa.field("notes", pa.list_(pa.string())),
        pa.field("seconds", pa.float64()),  # that it took
    ]
)


@dataclass(frozen=True)
class Failure:
    """``stage`` (prepare, animate; or worker, where that was lost) broke with ``error`` (a class name) and ``message``."""

    stage: str
    error: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What became of a pair: a video, unless there is a failure."""

    row: Row
    made: Animation | None
    failure: Failure | None
    seconds: float
    suspicious: bool = False
    """Whether the worker may be to blame."""
    traceback: str | None = None

    def cells(self) -> dict[str, Any]:
        """Its row of the table."""
        made, failure = self.made, self.failure
        cells: dict[str, Any] = {
            "name": self.row.name,
            "portrait": str(self.row.portrait),
            "driving": str(self.row.driving),
            "seed": self.row.seed,
            "outcome": "failed" if failure else "animated",
            "seconds": self.seconds,
        }
        if failure is not None:
            cells |= {"stage": failure.stage, "error": failure.error, "message": failure.message}
        if made is not None:
            cells |= {"frames": made.frames, "fps": made.fps, "width": made.width, "height": made.height}
            cells |= {"sound": made.sound, "stitched": made.stitched, "notes": list(made.notes)}
        return cells


def write_results(folder: Path, cells: Sequence[Mapping[str, Any]], run: Mapping[str, str]) -> None:
    """Write the table of ``folder``, whole or not at all; ``run`` is what decides the results beside their pairs."""
    table = pa.Table.from_pylist([dict(row) for row in cells], SCHEMA.with_metadata(dict(run)))
    write_atomic(folder / TABLE, lambda stream: pq.write_table(table, stream))


def read_results(folder: Path, run: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The rows of an earlier table of ``folder`` by name; none without one.

    Raises :class:`UserError` if it cannot be read, or if its videos were made otherwise than ``run``.
    """
    path = folder / TABLE
    if not path.exists():
        return {}
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it, and all pairs are animated again") from None
    stored = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    before = {key: stored.get(key) for key in run}
    if before != dict(run):
        changes = "\n".join(f"  {change}" for change in differences(before, dict(run)))
        raise UserError(
            f"the videos of {folder} were made otherwise; choose another --out, or undo the change:\n{changes}"
        )
    return {row["name"]: row for row in table.to_pylist()}


def still_holds(cells: Mapping[str, Any], row: Row, folder: Path) -> bool:
    """Whether ``cells``, of an earlier run, tell of a video of ``row`` that is there, and newer than both its files."""
    asked = {"portrait": str(row.portrait), "driving": str(row.driving), "seed": row.seed, "outcome": "animated"}
    if any(cells.get(name) != value for name, value in asked.items()):
        return False
    try:
        made = row.pair(folder).out.stat().st_mtime_ns
        return all(path.stat().st_mtime_ns <= made for path in (row.portrait, row.driving))
    except OSError:
        return False
