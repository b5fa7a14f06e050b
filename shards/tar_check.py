"""One tar and its index against what a record lists: which byte is not the one that was written, and of which member.

An index is parsed only after its digest was checked, and then tells what every byte of its tar has to be: header, data by
crc32c, padding, end. So any altered byte is found, and it is attributed to its member.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from shards import ustar
from shards.dataset import LayerFile, index_path, tar_path
from shards.index import DamageError, Entry, LayerIndex, read_index
from shards.schema import CLIP_ID, SCHEMA_VERSION, decode_field, layer_fields
from shards.storage import read_bytes

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Problem:
    """What is wrong with ``file`` (relative to the dataset), in its tar member ``member`` where one can be named."""

    file: str
    member: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.member + ': ' if self.member else ''}{self.message}"


def check_tar(root: Path, listed: LayerFile, record: str) -> tuple[tuple[str, ...] | None, list[Problem]]:
    """The clip ids in the tar that ``record`` lists, in order, and what is wrong with tar and index.

    The ids are ``None`` if the index cannot be trusted. ``record`` is the file's name, for the messages.
    """
    tar, path = tar_path(root, listed.part, listed.layer), index_path(root, listed.part, listed.layer)
    tar_file, index_file = (f"{file.parent.name}/{file.name}" for file in (tar, path))
    problems = []
    if listed.file != tar_file:
        problems.append(Problem(record, None, f"lists {listed.file!r} where {tar_file} is meant"))
    index: LayerIndex | None = None
    try:
        if hashlib.sha256(read_bytes(path)).hexdigest() != listed.index_sha256:
            problems.append(Problem(index_file, None, f"damaged index: sha256 differs from {record}"))
        else:
            index = read_index(path)
            # An index that contradicts itself cannot tell what the bytes of the tar should be.
            contradictions = list(_check_index(index_file, index, listed, record))
            problems += contradictions
            index = None if contradictions else index
    except OSError as error:
        problems.append(Problem(index_file, None, cannot_read(error)))
    except DamageError as error:
        problems.append(Problem(index_file, None, str(error)))
    try:
        with tar.open("rb") as stream:
            problems += _check_bytes(tar_file, stream, listed, index, record)
    except OSError as error:
        problems.append(Problem(tar_file, None, f"{cannot_read(error)}; its {listed.samples} samples are lost"))
    return index.keys if index else None, problems


def cannot_read(error: OSError) -> str:
    """Why a file could not be read."""
    return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"


def _check_index(file: str, index: LayerIndex, layer: LayerFile, record: str) -> Iterator[Problem]:
    """The index must be the one that the writer makes for these samples; only the crc32c values are free."""
    stated = (index.layer, index.schema_version, index.samples, index.tar_bytes, index.tar_sha256)
    if stated != (layer.layer, SCHEMA_VERSION, layer.samples, layer.bytes, layer.sha256):
        yield Problem(file, None, f"its metadata contradict {record}")
    try:
        fields = layer_fields(layer.layer, {entry.field for entry in index.entries})
    except ValueError as error:
        yield Problem(file, None, str(error))
        return
    if len(index.entries) != layer.samples * len(fields) or len(index.keys) != layer.samples:
        yield Problem(
            file, None, f"{len(index.entries)} rows of {len(index.keys)} clips where {layer.samples} samples are stated"
        )
        return
    offset = ustar.BLOCK
    for number, entry in enumerate(index.entries):
        field = fields[number % len(fields)]
        sample = number // len(fields)
        actual = (entry.sample, entry.key, entry.field, entry.offset, entry.dtype)
        expected = (sample, index.keys[sample], field.name, offset, field.dtype)
        if actual != expected or not field.fits(entry.shape) or entry.nbytes < 0:
            yield Problem(file, entry.member, "this row contradicts the schema or the rows before it")
            return
        if not CLIP_ID.fullmatch(entry.key):
            yield Problem(file, entry.member, "the key is not a clip id")
            return
        offset += entry.nbytes + len(ustar.padding(entry.nbytes)) + ustar.BLOCK
    if offset - ustar.BLOCK + len(ustar.END) != layer.bytes:
        yield Problem(file, None, f"its members do not add up to a tar of {layer.bytes} bytes")


def _check_bytes(
    file: str, stream: BinaryIO, layer: LayerFile, index: LayerIndex | None, record: str
) -> Iterator[Problem]:
    digest = hashlib.sha256()
    attributed = False
    size = stream.seek(0, 2)
    stream.seek(0)
    for entry in index.entries if index else ():
        member = stream.read(ustar.BLOCK + entry.nbytes + len(ustar.padding(entry.nbytes)))
        digest.update(member)
        message = _member_message(entry, member)
        if message:
            attributed = True
            yield Problem(file, entry.member, message)
        if stream.tell() < entry.offset + entry.nbytes:
            yield Problem(
                file, None, f"cut short: {size} of {layer.bytes} bytes; nothing after {entry.member} can be read"
            )
            return
    if index:
        end = stream.read(len(ustar.END))
        digest.update(end)
        if end != ustar.END:
            attributed = True
            yield Problem(file, None, "the end of the archive is altered")
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    if size != layer.bytes:
        yield Problem(file, None, f"has {size} bytes, {record} lists {layer.bytes}")
    elif digest.hexdigest() != layer.sha256 and not attributed:
        yield Problem(file, None, f"altered: sha256 differs from {record}, and no member can be named for it")


def _member_message(entry: Entry, member: bytes) -> str | None:
    """What is wrong with the bytes of one member (header, data, padding), if anything."""
    end = ustar.BLOCK + entry.nbytes
    header, data, padding = member[: ustar.BLOCK], member[ustar.BLOCK : end], member[end:]
    if len(header) < ustar.BLOCK or len(data) < entry.nbytes:
        return f"cut short: {len(data)} of {entry.nbytes} bytes"
    if header != ustar.header(entry.member, entry.nbytes):
        return "its tar header is altered"
    if google_crc32c.value(data) != entry.crc32c:
        return "its data are altered: crc32c differs from the index"
    if padding != ustar.padding(entry.nbytes):
        return "the padding after its data is altered"
    try:
        value = decode_field(entry.field, data)
    except ValueError as error:
        return str(error)
    if entry.field == "meta.json" and value["clip_id"] != entry.key:
        return f"describes another clip, {value['clip_id']}"
    return None
