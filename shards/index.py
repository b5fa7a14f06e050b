"""The index of a layer: where every field of every sample lies in the tar, so that it can be read without the rest."""

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import google_crc32c
import pyarrow as pa
import pyarrow.parquet as pq

from shards.dataset import SHARD_FOLDER, LayerFile, index_path, tar_path
from shards.schema import BASE_LAYER
from shards.storage import parquet_source, read_bytes, read_range, write_atomic

INDEX_SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("field", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("nbytes", pa.int64(), nullable=False),
        pa.field("dtype", pa.string()),
        pa.field("shape", pa.list_(pa.int32())),
        pa.field("crc32c", pa.uint32(), nullable=False),
    ]
)
_METADATA = "faceloom."


class DamageError(Exception):
    """A file of a dataset is not what was written; the message names the file and, where known, the member."""


@dataclass(frozen=True)
class Entry:
    """One member of a tar: field ``field`` of sample number ``sample`` (whose clip id is ``key``).

    ``offset`` and ``nbytes`` delimit the member's data in the tar. ``dtype`` and ``shape`` are those of an array and
    ``None`` otherwise; an array's numbers are the last ``prod(shape) * itemsize`` bytes of the member.
    """

    sample: int
    key: str
    field: str
    offset: int
    nbytes: int
    dtype: str | None
    shape: tuple[int, ...] | None
    crc32c: int

    @property
    def member(self) -> str:
        """The member's name in the tar."""
        return f"{self.key}.{self.field}"


@dataclass(frozen=True)
class LayerIndex:
    """All entries of one tar in the order of its members, and the tar's size and digest."""

    layer: str
    schema_version: int
    samples: int
    tar_bytes: int
    tar_sha256: str
    entries: tuple[Entry, ...]

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The clip id of each sample, in order."""
        return tuple(dict.fromkeys(entry.key for entry in self.entries))

    @cached_property
    def _by_name(self) -> dict[tuple[str, str], Entry]:
        return {(entry.key, entry.field): entry for entry in self.entries}

    def entry(self, key: str, field: str) -> Entry:
        """The entry of one field of one clip. Raises ``KeyError`` if this tar does not hold it."""
        return self._by_name[key, field]


def write_index(path: Path, index: LayerIndex) -> None:
    """Write ``index`` as Parquet, atomically. Uncompressed, so that the bytes do not depend on a codec's version."""
    table = pa.Table.from_pylist([asdict(entry) for entry in index.entries], schema=INDEX_SCHEMA)
    header = {
        "layer": index.layer,
        "schema_version": str(index.schema_version),
        "samples": str(index.samples),
        "tar_bytes": str(index.tar_bytes),
        "tar_sha256": index.tar_sha256,
    }
    table = table.replace_schema_metadata({_METADATA + name: value for name, value in header.items()})
    write_atomic(path, lambda stream: pq.write_table(table, stream, compression="none", write_page_checksum=True))


def read_index(path: Path) -> LayerIndex:
    """Read what :func:`write_index` wrote. Raises :class:`DamageError` naming the file if it cannot be read as such."""
    try:
        with pq.ParquetFile(parquet_source(path), page_checksum_verification=True) as file:
            table = file.read()
        if not table.schema.equals(INDEX_SCHEMA):
            raise ValueError("its columns are not those of an index")
        metadata = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
        columns = table.to_pydict()
        entries = [
            Entry(sample, key, field, offset, nbytes, dtype, None if shape is None else tuple(shape), crc32c)
            for sample, key, field, offset, nbytes, dtype, shape, crc32c in zip(
                *(columns[name] for name in INDEX_SCHEMA.names), strict=True
            )
        ]
        return LayerIndex(
            layer=metadata[_METADATA + "layer"],
            schema_version=int(metadata[_METADATA + "schema_version"]),
            samples=int(metadata[_METADATA + "samples"]),
            tar_bytes=int(metadata[_METADATA + "tar_bytes"]),
            tar_sha256=metadata[_METADATA + "tar_sha256"],
            entries=tuple(entries),
        )
    except Exception as error:  # pyarrow reports a damaged file by half a dozen unrelated exception types
        raise DamageError(f"{path}: unreadable index ({type(error).__name__}: {_first_line(error)})") from error


def read_layer_file(root: Path, part: int, layer: str = BASE_LAYER) -> LayerFile:
    """The row of ``dataset.json`` for a tar that is already on disk, from its index alone (the tar is not read).

    Raises :class:`DamageError` if the index is absent or unreadable.
    """
    path = index_path(root, part, layer)
    index = read_index(path)
    return LayerFile(
        part=part,
        layer=layer,
        file=f"{SHARD_FOLDER}/{tar_path(root, part, layer).name}",
        samples=index.samples,
        bytes=index.tar_bytes,
        sha256=index.tar_sha256,
        index_sha256=hashlib.sha256(read_bytes(path)).hexdigest(),
    )


def read_field(tar: Path, entry: Entry) -> bytes:
    """The bytes of one field by a single positioned read, checked against their crc32c.

    Raises :class:`DamageError` naming tar and member if they are cut short or altered.
    """
    try:
        data = read_range(tar, entry.offset, entry.nbytes)
    except FileNotFoundError:
        raise DamageError(f"{tar}: missing; {entry.member} cannot be read") from None
    if len(data) != entry.nbytes:
        raise DamageError(f"{tar}: {entry.member} is cut short: {len(data)} of {entry.nbytes} bytes")
    if google_crc32c.value(data) != entry.crc32c:
        raise DamageError(f"{tar}: {entry.member} is damaged: its crc32c differs from the index")
    return data


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
