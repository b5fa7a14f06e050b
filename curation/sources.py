"""The manifest: one Parquet row a clip, what a run has to decide."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from faceloom.errors import UserError
from faceloom.location import is_remote
from faceloom.storage_errors import holds_secret
from faceloom.transfers import current, download
from shards.storage import write_atomic

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("source_key", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("t0_s", pa.float64(), nullable=False),
        pa.field("t1_s", pa.float64()),
        pa.field("person_id", pa.string()),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("duplicate_of", pa.string()),
        pa.field("single_shot", pa.bool_()),
        # Text, not a map: every dataset has labels of its own with types of their own, and text goes through every tool.
        pa.field("labels", pa.string()),
    ]
)

_CHECKED_COLUMNS = ["dataset", "source_key", "path", "t0_s", "t1_s"]
_CLIP_COLUMNS = [name for name in SCHEMA.names if name != "clip_id"]
_ROW_GROUP = 65_536
_CHECKED_ROWS = 4096


@dataclass(frozen=True)
class Clip:
    """A source video and a time span ``[t0_s, t1_s)``, counted from its first frame; ``t1_s = None`` is the end.

    ``source_key`` names the source inside its dataset and never changes when the data moves; ``path`` is where it lies
    today. ``duplicate_of`` is the source key of an earlier file with the same bytes. ``person_id`` names a person within
    the dataset. ``single_shot`` is true where the dataset promises that the span has no cut, and null where it says nothing.
    ``labels`` is what else the dataset says, as :func:`label_text` writes it.
    """

    dataset: str
    source_key: str
    path: str
    t0_s: float = 0.0
    t1_s: float | None = None
    person_id: str | None = None
    licence: str = "unknown"
    duplicate_of: str | None = None
    single_shot: bool | None = None
    labels: str | None = None

    @property
    def clip_id(self) -> str:
        """16 hex digits: a hash of dataset, source key and span, so that it outlives moves and re-ingestion."""
        # float(): 2 and numpy's 2.0 are the span that is read back from the manifest as 2.0.
        t1_s = None if self.t1_s is None else float(self.t1_s)
        identity = f"{self.dataset}\0{self.source_key}\0{float(self.t0_s)!r}\0{t1_s!r}"
        return hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()


def label_text(**labels: object) -> str | None:
    """Labels as one JSON object with sorted keys, without those that are None; None when none is left.

    In SQL, a label of the manifest or the ledger is ``labels->>'emotion'``.
    """
    known = {name: value for name, value in labels.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if known else None


def record_batches(clips: Iterable[Clip]) -> Iterator[pa.RecordBatch]:
    """The clips as rows of :data:`SCHEMA`, in batches that are small beside the memory of any machine."""
    remaining = iter(clips)
    while rows := list(islice(remaining, _ROW_GROUP)):
        columns = [[getattr(clip, name) for clip in rows] for name in SCHEMA.names]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def write_manifest(clips: Iterable[Clip], path: Path) -> int:
    """Write the manifest, whole or not at all; returns the number of clips. Raises as :func:`write_batches` does."""
    return write_batches(record_batches(clips), path)


def write_batches(batches: Iterable[pa.RecordBatch], path: Path) -> int:
    """Write rows of :data:`SCHEMA` as a manifest, whole or not at all, one batch in memory; returns their number.

    Raises :class:`UserError` when there is none, or two of one identity.
    """
    identities: list[pa.RecordBatch] = []

    def write(stream: BinaryIO) -> None:
        with pq.ParquetWriter(stream, SCHEMA) as writer:
            for batch in batches:
                writer.write_batch(batch)
                identities.append(batch.select(["clip_id", "source_key"]))
        if not identities:
            raise UserError(f"nothing to write to {path}: no clips were found")
        _refuse_repeats(pa.Table.from_batches(identities), str(path))

    write_atomic(path, write)
    return sum(len(batch) for batch in identities)


@dataclass(frozen=True)
class Manifest:
    """An opened manifest: its rows are read block by block, never all at once."""

    path: Path
    file: Path
    """Where it is read: ``path`` itself or, of a remote one, a copy that lasts as long as the command."""
    clips: int
    sha256: str

    def blocks(self, size: int, limit: int | None = None) -> Iterator[list[Clip]]:
        """The clips in order, ``size`` at a time, of the first ``limit`` rows."""
        left = self.clips if limit is None else min(limit, self.clips)
        pending: list[Clip] = []
        with pq.ParquetFile(self.file) as file:
            for batch in file.iter_batches(batch_size=max(size, 1024), columns=_CLIP_COLUMNS):
                for row in batch.to_pylist()[:left]:
                    pending.append(Clip(**row))
                    left -= 1
                    if len(pending) == size:
                        yield pending
                        pending = []
                if left == 0:
                    break
        if pending:
            yield pending


def open_manifest(path: Path) -> Manifest:
    """Open and check a manifest, once it is copied here if it is remote. Raises :class:`UserError` naming what is wrong."""
    if not is_remote(path):
        return _open(path)
    copy = current().scratch.file(".parquet")
    try:
        download(path, copy)
        return replace(_open(copy), path=path)
    except FileNotFoundError:
        raise UserError(
            f"no manifest at {path}; make one with: faceloom ingest folder --root DIR --out {path}"
        ) from None
    except OSError as error:
        raise UserError(f"cannot read the manifest {path}: {error.strerror}") from None
    except UserError as error:
        raise UserError(str(error).replace(str(copy), str(path))) from None


def _open(path: Path) -> Manifest:
    if not path.is_file():
        raise UserError(f"no manifest at {path}; make one with: faceloom ingest folder --root DIR --out {path}")
    try:
        with pq.ParquetFile(path) as file:
            missing = [field.name for field in SCHEMA if field.name not in file.schema_arrow.names]
            rows = file.metadata.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} is not a readable Parquet file ({error}); make it again with: faceloom ingest"
        ) from None
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; make it again with: faceloom ingest")
    if rows == 0:
        raise UserError(f"{path} holds no clips; make it again with: faceloom ingest")
    _check_rows(path, rows)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Manifest(path=path, file=path, clips=rows, sha256=digest)


def _check_rows(path: Path, rows: int) -> None:
    """Refuse ids that are not those of their rows or come twice, with eight bytes of memory for every row, and secrets."""
    ids = np.empty(rows, np.uint64)
    at = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_CHECKED_ROWS, columns=["clip_id", *_CHECKED_COLUMNS]):
            for row in batch.to_pylist():
                stored = row.pop("clip_id")
                if holds_secret(row["path"]):
                    raise UserError(
                        f"{path}: the path of {row['source_key']} holds a password or a signature, which the ledger would "
                        "keep; leave it out, and give credentials in the environment"
                    )
                if Clip(**row).clip_id != stored:
                    raise UserError(
                        f"{path}: the clip id of {row['source_key']} does not belong to its dataset, source key and span; "
                        "make the manifest again with: faceloom ingest"
                    )
                ids[at] = int(stored, 16)
                at += 1
    ids.sort()
    if (ids[1:] == ids[:-1]).any():
        _refuse_repeats(pq.read_table(path, columns=["clip_id", "source_key"]), str(path))


def _refuse_repeats(table: pa.Table, label: str) -> None:
    # Sorted numbers are a tenth of the table that grouping a million strings takes, and there is rarely anything to group.
    ids = [
        np.fromiter((int(clip_id, 16) for clip_id in chunk.to_pylist()), np.uint64) for chunk in table["clip_id"].chunks
    ]
    ordered = np.sort(np.concatenate(ids))
    if not (ordered[1:] == ordered[:-1]).any():
        return
    counts = table.group_by("clip_id").aggregate([("source_key", "min"), ("clip_id", "count")])
    repeated = counts.filter(pc.greater(counts["clip_id_count"], 1))
    if repeated.num_rows:
        names = ", ".join(repeated["source_key_min"].to_pylist()[:3])
        raise UserError(
            f"{label}: {repeated.num_rows} clips are listed more than once ({names}); list each source once"
        )
