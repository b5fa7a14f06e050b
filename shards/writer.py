"""Write one layer of one part: a deterministic WebDataset tar, then its index."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from shards import ustar
from shards.dataset import SHARD_FOLDER, LayerFile, index_path, tar_path
from shards.index import Entry, LayerIndex, read_layer_file, write_index
from shards.schema import CLIP_ID, SCHEMA_VERSION, Field, decode_field, layer_fields
from shards.storage import make_folder, write_atomic


def write_layer(folder: Path, part: int, layer: str, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> LayerFile:
    """Write ``folder/shards/part-NNNNN.<layer>.tar`` and its index; replaces what an interrupted run left there.

    ``samples`` yields ``(clip_id, {field: encoded bytes})`` and is consumed one sample at a time; the order is kept. No
    samples give an empty tar, so that every part of a dataset has its file. Equal samples give equal bytes.
    The first sample decides on the layer's optional fields for all.
    Raises ``ValueError`` naming the clip when a key is not a clip id or comes twice, or when its fields are not exactly
    those of the layer, each as ``shards.schema.encode_field`` gives it; nothing is left on disk then.
    """
    entries: list[Entry] = []
    digest = hashlib.sha256()
    nbytes = 0

    def write_tar(stream: BinaryIO) -> None:
        nonlocal nbytes
        for chunk in _tar_chunks(layer, samples, entries):
            stream.write(chunk)
            digest.update(chunk)
            nbytes += len(chunk)

    make_folder(folder / SHARD_FOLDER)
    write_atomic(tar_path(folder, part, layer), write_tar)
    index = LayerIndex(
        layer=layer,
        schema_version=SCHEMA_VERSION,
        samples=len({entry.key for entry in entries}),
        tar_bytes=nbytes,
        tar_sha256=digest.hexdigest(),
        entries=tuple(entries),
    )
    write_index(index_path(folder, part, layer), index)
    return read_layer_file(folder, part, layer)


def _tar_chunks(
    layer: str, samples: Iterable[tuple[str, Mapping[str, bytes]]], entries: list[Entry]
) -> Iterator[bytes]:
    """The bytes of the tar, in order; ``entries`` receives one row for each member on the way."""
    fields = layer_fields(layer, ())
    seen: set[str] = set()
    position = 0
    for sample, (key, values) in enumerate(samples):
        if sample == 0:
            fields = layer_fields(layer, values)
        shapes = _check_sample(fields, key, values, seen)
        for field in fields:
            data = values[field.name]
            offset = position + ustar.BLOCK
            crc32c = google_crc32c.value(data)
            shape = None if field.dtype is None else shapes[field.name]
            entry = Entry(sample, key, field.name, offset, len(data), field.dtype, shape, crc32c)
            entries.append(entry)
            padding = ustar.padding(len(data))
            yield ustar.header(entry.member, len(data))
            yield data
            yield padding
            position = offset + len(data) + len(padding)
    yield ustar.END


def _check_sample(
    fields: Sequence[Field], key: str, values: Mapping[str, bytes], seen: set[str]
) -> dict[str, tuple[int, ...]]:
    """Refuse what the schema does not allow; returns the shapes of the arrays."""
    if not CLIP_ID.fullmatch(key):
        raise ValueError(f"clip {key!r}: a clip id is 16 lower-case hexadecimal digits")
    if key in seen:
        raise ValueError(f"clip {key}: given twice for one shard")
    seen.add(key)
    names = {field.name for field in fields}
    if names != set(values):
        raise ValueError(
            f"clip {key}: fields missing from the sample: {sorted(names - set(values))}, "
            f"not in its layer: {sorted(set(values) - names)}"
        )
    shapes = {}
    for name, data in values.items():
        try:
            value = decode_field(name, data)
        except ValueError as error:
            raise ValueError(f"clip {key}: {error}") from None
        if isinstance(value, np.ndarray):
            shapes[name] = value.shape
        if name == "meta.json" and value["clip_id"] != key:
            raise ValueError(f"clip {key}: meta.json is that of clip {value['clip_id']}")
    return shapes
