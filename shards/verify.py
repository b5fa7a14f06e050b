"""Prove that a dataset is whole: recompute every digest and name what is damaged, missing or unexpected.

The chain of trust starts at ``dataset.json``, which carries its own checksum and the sha256 of every tar and index. An index
is parsed only after its digest was checked, and then tells what every byte of its tar has to be: header, data by crc32c,
padding, end. So any altered byte is found, and inside a tar it is attributed to its member.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import pyarrow.parquet as pq

from faceloom.errors import UserError
from shards import ustar
from shards.dataset import (
    LEDGER_FOLDER,
    RECORD_NAME,
    SHARD_FOLDER,
    DatasetRecord,
    LayerFile,
    index_path,
    ledger_path,
    part_name,
    tar_path,
)
from shards.index import DamageError, Entry, LayerIndex, read_index, read_layer_file
from shards.schema import BASE_LAYER, CLIP_ID, SCHEMA_VERSION, decode_field, layer_fields
from shards.storage import is_temporary

_CHUNK = 1 << 20
_RESUME = "run the same `faceloom curate` command again"


@dataclass(frozen=True)
class Problem:
    """What is wrong with ``file`` (relative to the dataset), in its tar member ``member`` where one can be named."""

    file: str
    member: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.member + ': ' if self.member else ''}{self.message}"


def verify(dataset_dir: Path) -> list[Problem]:
    """Check a whole dataset; an empty list means that every byte is the one that was written.

    Never raises for a damaged, missing or unreadable file: that is a :class:`Problem`. Memory does not grow with the
    dataset. If ``dataset.json`` itself cannot be trusted, that is the only problem reported.
    """
    try:
        record = DatasetRecord.load(dataset_dir)
    except UserError as error:
        return [Problem(RECORD_NAME, None, str(error))]
    problems = list(_check_record(record))
    for part in range(record.manifest.blocks):
        problems += verify_part(dataset_dir, record, part)
    problems += _check_strays(dataset_dir, record)
    return problems


def verify_part(dataset_dir: Path, record: DatasetRecord, part: int) -> list[Problem]:
    """Check the ledger fragment of one manifest block and the tars and indexes that hold its kept clips."""
    kept, problems = _read_fragment(dataset_dir, record, part)
    layers = [layer for layer in record.shards if layer.part == part]
    if not layers and not record.complete and _exists(ledger_path(dataset_dir, part)):
        # A run lists its shards when it ends; until then the fragment is what commits a part.
        try:
            layers = [read_layer_file(dataset_dir, part)]
        except DamageError as error:
            problems.append(Problem(_relative(index_path(dataset_dir, part)), None, str(error)))
    for layer in layers:
        problems += _check_layer(dataset_dir, layer, kept)
    return problems


def _check_record(record: DatasetRecord) -> Iterator[Problem]:
    manifest = record.manifest
    if not record.complete:
        yield Problem(RECORD_NAME, None, f"the run is not finished; {_RESUME} to resume it")
    if manifest.block_clips < 1 or manifest.blocks != -(-manifest.clips // manifest.block_clips):
        yield Problem(
            RECORD_NAME, None, f"{manifest.clips} clips do not make {manifest.blocks} blocks of {manifest.block_clips}"
        )
    listed = Counter((layer.layer, layer.part) for layer in record.shards)
    layers = {BASE_LAYER, *(layer.layer for layer in record.shards)}
    expected = {(layer, part) for layer in layers for part in range(manifest.blocks)}
    for (layer, part), times in sorted(listed.items()):
        if times > 1:
            yield Problem(RECORD_NAME, None, f"lists {part_name(part)}.{layer} {times} times")
        if (layer, part) not in expected:
            yield Problem(RECORD_NAME, None, f"lists {part_name(part)}.{layer}, but there is no block {part}")
    if record.complete:
        if len(record.ledger) != manifest.blocks:
            yield Problem(RECORD_NAME, None, f"lists {len(record.ledger)} ledger fragments of {manifest.blocks} blocks")
        for layer, part in sorted(expected - set(listed)):
            yield Problem(RECORD_NAME, None, f"does not list {part_name(part)}.{layer}")


def _read_fragment(root: Path, record: DatasetRecord, part: int) -> tuple[list[str] | None, list[Problem]]:
    """The kept clip ids of a block in shard order (``None`` if they cannot be known), and what is wrong with it."""
    path = ledger_path(root, part)
    file = _relative(path)
    if not _exists(path):
        return None, [Problem(file, None, f"the ledger fragment of manifest block {part} is missing; {_RESUME}")]
    problems = []
    try:
        if part < len(record.ledger) and hashlib.sha256(path.read_bytes()).hexdigest() != record.ledger[part]:
            problems.append(Problem(file, None, f"altered since the run ended: sha256 differs from {RECORD_NAME}"))
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            table = parquet.read()  # every column, so that every page's checksum is checked
            stated = int(parquet.schema_arrow.metadata[b"rows"])
        clips, outcomes, positions = (table.column(name).to_pylist() for name in ("clip_id", "outcome", "shard_sample"))
        if not all(isinstance(clip, str) for clip in clips):
            raise ValueError("column clip_id is not text")
    except Exception as error:  # pyarrow reports a damaged file by half a dozen unrelated exception types
        message = f"unreadable ledger fragment ({type(error).__name__}: {error}); delete it and {_RESUME}"
        return None, [*problems, Problem(file, None, message)]
    expected = record.manifest.block_rows(part)
    if not len(clips) == stated == expected:
        message = f"holds {len(clips)} rows, states {stated}, the manifest block has {expected}"
        problems.append(Problem(file, None, message))
    if len(set(clips)) != len(clips):
        problems.append(Problem(file, None, "lists a clip more than once"))
    rows = [row for row, outcome in enumerate(outcomes) if outcome == "kept"]
    if [positions[row] for row in rows] != list(range(len(rows))):
        problems.append(Problem(file, None, "the kept clips are not numbered 0, 1, 2, … in shard_sample"))
    return [clips[row] for row in rows], problems


def _check_layer(root: Path, layer: LayerFile, kept: Sequence[str] | None) -> Iterator[Problem]:
    tar = tar_path(root, layer.part, layer.layer)
    if layer.file != _relative(tar):
        yield Problem(RECORD_NAME, None, f"lists {layer.file!r} where {_relative(tar)} is meant")
    index: LayerIndex | None = None
    path = index_path(root, layer.part, layer.layer)
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != layer.index_sha256:
            yield Problem(_relative(path), None, f"damaged index: sha256 differs from {RECORD_NAME}")
        else:
            index = read_index(path)
            # An index that contradicts itself cannot tell what the bytes of the tar should be.
            for problem in _check_index(_relative(path), index, layer):
                index = None
                yield problem
    except OSError as error:
        yield Problem(_relative(path), None, _cannot_read(error))
    except DamageError as error:
        yield Problem(_relative(path), None, str(error))
    try:
        with tar.open("rb") as stream:
            yield from _check_tar(_relative(tar), stream, layer, index)
    except OSError as error:
        yield Problem(_relative(tar), None, f"{_cannot_read(error)}; its {layer.samples} samples are lost")
    if index is not None and kept is not None and list(index.keys) != list(kept):
        yield Problem(_relative(tar), None, _difference(index.keys, kept))


def _check_index(file: str, index: LayerIndex, layer: LayerFile) -> Iterator[Problem]:
    """The index must be the one that the writer makes for these samples; only the crc32c values are free."""
    stated = (index.layer, index.schema_version, index.samples, index.tar_bytes, index.tar_sha256)
    if stated != (layer.layer, SCHEMA_VERSION, layer.samples, layer.bytes, layer.sha256):
        yield Problem(file, None, f"its metadata contradict {RECORD_NAME}")
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


def _check_tar(file: str, stream: BinaryIO, layer: LayerFile, index: LayerIndex | None) -> Iterator[Problem]:
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
        yield Problem(file, None, f"has {size} bytes, {RECORD_NAME} lists {layer.bytes}")
    elif digest.hexdigest() != layer.sha256 and not attributed:
        yield Problem(file, None, f"altered: sha256 differs from {RECORD_NAME}, and no member can be named for it")


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


def _check_strays(root: Path, record: DatasetRecord) -> Iterator[Problem]:
    """Files that no run leaves behind: unfinished writes, and shards or fragments that nothing accounts for."""
    blocks = range(record.manifest.blocks)
    known = {ledger_path(root, part) for part in blocks}
    listed = [(layer.part, layer.layer) for layer in record.shards]
    if not record.complete:
        listed += [(part, BASE_LAYER) for part in blocks if _exists(ledger_path(root, part))]
    for part, layer in listed:
        known |= {tar_path(root, part, layer), index_path(root, part, layer)}
    for folder in (root, root / SHARD_FOLDER, root / LEDGER_FOLDER):
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            if record.manifest.blocks:
                yield Problem(folder.name, None, _cannot_read(error))
            continue
        for path in paths:
            file = str(path.relative_to(root))
            if is_temporary(path):
                yield Problem(file, None, f"left by a write that was interrupted; {_RESUME}, or delete it")
            elif folder != root and path not in known:
                yield Problem(file, None, "unexpected file: neither listed nor committed by a ledger fragment")


def _difference(keys: Sequence[str], kept: Sequence[str]) -> str:
    missing, extra = sorted(set(kept) - set(keys)), sorted(set(keys) - set(kept))
    if not missing and not extra:
        return "its samples are not in the order of the ledger"
    parts = [f"lacks {', '.join(missing)}" if missing else "", f"holds {', '.join(extra)} unasked" if extra else ""]
    return f"differs from the kept clips of the ledger: {'; '.join(part for part in parts if part)}"


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True


def _relative(path: Path) -> str:
    """``path`` of a shard, index or fragment, relative to its dataset."""
    return f"{path.parent.name}/{path.name}"


def _cannot_read(error: OSError) -> str:
    return "missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
