"""Where the wanted fields of one tar lie: its index as compact arrays, a few dozen bytes a sample and field.

A dataset of 10⁵ shards has gigabytes of index, and an epoch visits a shard once: so a reader parses the index of a shard when
it comes to it (2 ms for 256 samples of 16 fields) and forgets it with the shard.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.schema import FIELDS

_ITEM_BYTES = {"uint16": 2, "float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class FieldRows:
    """One field of the n samples of a tar.

    ``offset`` and ``nbytes`` (int64 [n]) delimit the members' data, ``crc32c`` is uint32 [n]. ``shape`` is
    int32 [n, dimensions] for an array and ``None`` for other files.
    """

    name: str
    offset: npt.NDArray[np.int64]
    nbytes: npt.NDArray[np.int64]
    crc32c: npt.NDArray[np.uint32]
    shape: npt.NDArray[np.int32] | None

    def array_shape(self, row: int) -> tuple[int, ...] | None:
        """The shape of the array of sample ``row``; ``None`` for another file."""
        return None if self.shape is None else tuple(self.shape[row].tolist())

    def array_bytes(self, row: int) -> int:
        """How many bytes at the end of the member are the numbers of the array; what precedes them is its header."""
        return math.prod(self.array_shape(row) or (0,)) * _ITEM_BYTES[str(FIELDS[self.name].dtype)]


@dataclass(frozen=True)
class LayerRows:
    """The clip id of each sample of a tar, in order, and the rows of some of its fields."""

    keys: tuple[str, ...]
    fields: dict[str, FieldRows]


def parse_rows(index: bytes, fields: Collection[str]) -> LayerRows:
    """The rows of ``fields`` from the bytes of an index file, whose digest the caller has checked.

    Raises ``KeyError`` naming a field that the tar does not hold.
    """
    # The one thread of the caller: many readers parse at once, and a second pool of threads would only get in their way.
    with pq.ParquetFile(pa.BufferReader(index), read_dictionary=["field"]) as file:
        table = file.read(use_threads=False)
    names = table.column("field").combine_chunks()
    first = table.filter(pc.equal(names, names[0])) if len(names) else table
    found = {}
    for name in fields:
        rows = table.filter(pc.equal(names, name)).combine_chunks()
        if len(rows) != len(first):
            raise KeyError(name)
        shape = None
        if FIELDS[name].dtype is not None:
            shape = (
                rows.column("shape").combine_chunks().flatten().to_numpy().reshape(len(rows), -1 if len(rows) else 0)
            )
        columns = {column: rows.column(column).to_numpy() for column in ("offset", "nbytes", "crc32c")}
        found[name] = FieldRows(name, shape=shape, **columns)
    return LayerRows(tuple(first.column("key").to_pylist()), found)
