"""From a dataset's folder to a manifest, with an account of everything that did not get into it.

Clips go to the disk as they are listed, so that memory does not grow with them; only then is it known which files have equal
sizes and have to be compared.
"""

import csv
import io
import shutil
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, BinaryIO

import numpy as np
import pyarrow as pa

from curation.adapters.entries import Entry, Ignored, LeftOut, Notice
from curation.adapters.table import Dataset
from curation.duplicates import Candidate, duplicates, file_size
from curation.sources import SCHEMA, Clip, record_batches, write_batches
from faceloom.errors import UserError
from faceloom.location import is_remote
from shards.storage import write_atomic

_NAMED = 3
"""How many of the things left out for one reason are named in a report; ``--exclusions`` names all."""


@dataclass
class Reason:
    """How many things were left out for one reason, and the first of them by name."""

    reason: str
    count: int = 0
    first: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What an ingestion made of a folder: every row and video of it is a clip or left out."""

    manifest: str
    clips: int
    duplicates: int
    """Clips whose file has the bytes of an earlier one: they are in the manifest, and curation rejects them."""
    left_out: tuple[Reason, ...]
    ignored: dict[str, int]
    """Files that are no videos by their names: how many of each suffix, lower case, "" for none."""
    notices: tuple[str, ...]


def ingest(
    dataset: Dataset,
    root: Path,
    out: Path,
    *,
    name: str | None = None,
    licence: str | None = None,
    exclusions: Path | None = None,
) -> Report:
    """List ``root`` as ``dataset`` and write the manifest ``out``, whole or not at all.

    ``name`` and ``licence`` are recorded instead of the dataset's own. ``exclusions`` is a CSV file to write, with the name
    and the reason of everything left out. Raises :class:`UserError` when ``root`` is not laid out as the dataset is, when
    nothing is left to list, or when a file cannot be written.
    """
    tally = _Tally()
    entries = dataset.entries(root)
    for path, option in ((out, "--out"), (exclusions, "--exclusions")):
        if path is not None and not is_remote(path) and not path.absolute().parent.is_dir():
            raise UserError(
                f"cannot write {path}: its folder does not exist; name a file in an existing one with {option}"
            )
    with TemporaryDirectory(prefix="faceloom-ingest-") as scratch:
        spool = _Spool(Path(scratch) / "clips.arrow")
        with (Path(scratch) / "exclusions.csv").open("w+", encoding="utf-8", newline="") as named:
            clips = _clips(entries, tally, named)
            if name is not None or licence is not None:
                clips = (_renamed(clip, name, licence) for clip in clips)
            spool.write(record_batches(clips))
            if exclusions is not None:
                _write(exclusions, "--exclusions", lambda: _copy(named, exclusions))
        if not spool.rows:
            raise UserError(f"no video below {root} ({tally.seen()}); expected: {dataset.layout}")
        equal = duplicates(spool.candidates())
        _write(out, "--out", lambda: write_batches(spool.batches(equal), out))
    return Report(
        manifest=str(out),
        clips=spool.rows,
        duplicates=len(equal),
        left_out=tuple(sorted(tally.reasons.values(), key=lambda reason: -reason.count)),
        ignored=dict(sorted(tally.ignored.items())),
        notices=tuple(tally.notices),
    )


@dataclass
class _Tally:
    reasons: dict[str, Reason] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def seen(self) -> str:
        """What was found instead of clips, for an error."""
        files = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in sorted(self.ignored.items()))
        reasons = "".join(f"; {r.count} left out, such as {r.first[0]}: {r.reason}" for r in self.reasons.values())
        return f"found: {files or 'no other files'}{reasons}"


def _clips(entries: Iterable[Entry], tally: _Tally, named: IO[str]) -> Iterator[Clip]:
    """The clips among ``entries``; the others are counted, and what is left out is written to ``named`` as CSV."""
    rows = csv.writer(named)
    rows.writerow(("name", "reason"))
    for entry in entries:
        match entry:
            case Clip():
                yield entry
            case LeftOut():
                label = _printable(entry.name)
                rows.writerow((label, entry.reason))
                reason = tally.reasons.setdefault(entry.reason, Reason(entry.reason))
                reason.count += 1
                if len(reason.first) < _NAMED:
                    reason.first.append(label)
            case Ignored():
                tally.ignored[entry.suffix] = tally.ignored.get(entry.suffix, 0) + entry.count
            case Notice():
                tally.notices.append(entry.text)


def _renamed(clip: Clip, name: str | None, licence: str | None) -> Clip:
    return replace(clip, dataset=name or clip.dataset, licence=licence or clip.licence)


def _printable(name: str) -> str:
    """Names come from files and tables of strangers, and go to a terminal."""
    if name.isprintable():
        return name
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _write(path: Path, option: str, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; name another file with {option}") from None


def _copy(text: IO[str], path: Path) -> None:
    """Write what is in ``text``, whole or not at all."""
    text.seek(0)

    def write(stream: BinaryIO) -> None:
        encoded = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        shutil.copyfileobj(text, encoded)
        encoded.flush()
        encoded.detach()

    write_atomic(path.absolute(), write)


class _Spool:
    """Rows of a manifest on the disk, to be read again batch by batch, and the sizes of their files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sizes = array("q")

    @property
    def rows(self) -> int:
        return len(self._sizes)

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Raises :class:`UserError` when the disk is full."""
        last, size = "", 0
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        with pa.OSFile(str(self._path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA, options=options) as writer:
            for batch in batches:
                for path in batch["path"].to_pylist():
                    if path != last:  # the spans of one source follow each other
                        last, size = path, file_size(path)
                    self._sizes.append(size)
                try:
                    writer.write_batch(batch)
                except OSError as error:
                    raise UserError(
                        f"cannot write to {self._path.parent.parent}: {error}; name a folder with more room by TMPDIR"
                    ) from None

    def candidates(self) -> Iterator[Candidate]:
        """The rows whose files have the size of another row's, in order."""
        sizes = np.frombuffer(self._sizes, np.int64)
        values, counts = np.unique(sizes, return_counts=True)
        shared = np.isin(sizes, values[(counts > 1) & (values > 0)])
        start = 0
        for batch in self._read():
            rows = np.flatnonzero(shared[start : start + len(batch)])
            columns = batch.select(["source_key", "path", "t0_s", "t1_s"]).take(pa.array(rows))
            for row, (key, path, t0_s, t1_s) in zip(
                rows, zip(*(c.to_pylist() for c in columns), strict=True), strict=True
            ):
                yield Candidate(start + int(row), key, path, int(sizes[start + row]), (t0_s, t1_s))
            start += len(batch)

    def batches(self, duplicate_of: dict[int, str]) -> Iterator[pa.RecordBatch]:
        """The rows in order, with ``duplicate_of`` filled in."""
        column = SCHEMA.get_field_index("duplicate_of")
        start = 0
        for batch in self._read():
            found = [duplicate_of.get(row) for row in range(start, start + len(batch))]
            yield batch.set_column(column, SCHEMA.field(column), pa.array(found, pa.string()))
            start += len(batch)

    def _read(self) -> Iterator[pa.RecordBatch]:
        with pa.OSFile(str(self._path)) as source, pa.ipc.open_file(source) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
