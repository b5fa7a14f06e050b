"""Prove that a dataset is whole: recompute every digest and name what is damaged, missing or unexpected.

The chain of trust starts at ``dataset.json`` and, for a further layer, at ``layers/<layer>.json``. Each carries its own
checksum and the sha256 of every tar, index and ledger fragment; :mod:`shards.tar_check` goes on from there, byte by byte.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from faceloom.errors import UserError
from shards.dataset import (
    LEDGER_FOLDER,
    RECORD_NAME,
    SHARD_FOLDER,
    DatasetRecord,
    index_path,
    ledger_path,
    part_name,
    tar_path,
)
from shards.index import DamageError, read_layer_file
from shards.layers import LAYERS_FOLDER, LayerRecord, layer_ledger_path, layer_names, layer_record_path
from shards.schema import BASE_LAYER
from shards.storage import is_temporary, parquet_source, read_bytes
from shards.tar_check import Problem, cannot_read, check_tar


def verify(dataset_dir: Path) -> list[Problem]:
    """Check a whole dataset with its layers; an empty list means that every byte is the one that was written.

    Never raises for a damaged, missing or unreadable file: that is a :class:`Problem`. Memory does not grow with the
    dataset. If ``dataset.json`` itself cannot be trusted, that is the only problem reported; if the record of a layer cannot,
    that is the only one of this layer.
    """
    try:
        record = DatasetRecord.load(dataset_dir)
    except UserError as error:
        return [Problem(RECORD_NAME, None, str(error))]
    manifest = record.manifest
    base = _Layer(dataset_dir, BASE_LAYER, RECORD_NAME, record, "kept", _base_remedy(record))
    layers, problems = _load_layers(dataset_dir, record)
    if manifest.block_clips < 1 or manifest.blocks != -(-manifest.clips // manifest.block_clips):
        message = f"{manifest.clips} clips do not make {manifest.blocks} blocks of {manifest.block_clips}"
        problems.append(Problem(RECORD_NAME, None, message))
    for layer in (base, *layers):
        problems += layer.check_record(manifest.blocks)
    for part in range(manifest.blocks):
        fragment, found = base.check_part(part)
        problems += found
        rows = manifest.block_rows(part)
        counted = 0 if fragment is None else len(fragment.clips if record.repacked else fragment.manifest_clips)
        if fragment and counted != rows:
            message = f"holds {counted} clips of the manifest, its block has {rows}"
            problems.append(Problem(base.fragment_file(part), None, message))
        if fragment and not record.repacked and fragment.strayed:
            message = f"the row of {fragment.strayed} does not stand behind that of the clip it is a further window of"
            problems.append(Problem(base.fragment_file(part), None, message))
        for layer in layers:
            outcomes, found = layer.check_part(part)
            problems += found
            if fragment and outcomes and outcomes.clips != fragment.done:
                message = _difference(outcomes.clips, fragment.done, "the kept clips of the base")
                problems.append(Problem(layer.fragment_file(part), None, message))
    return problems + list(_check_strays(dataset_dir, manifest.blocks, base, layers))


@dataclass(frozen=True)
class _Fragment:
    """What a ledger fragment says: its clips, and those ``done``, which are in the tar, in that order.

    ``of_clips`` names for a further window the clip that it is of.
    """

    clips: list[str]
    done: list[str]
    of_clips: list[str | None]

    @property
    def manifest_clips(self) -> list[str]:
        """Those that are no further window of another."""
        return [clip for clip, of_clip in zip(self.clips, self.of_clips, strict=True) if of_clip is None]

    @property
    def strayed(self) -> str | None:
        """The first further window that does not follow its clip or another window of it."""
        last = None
        for clip, of_clip in zip(self.clips, self.of_clips, strict=True):
            if of_clip is None:
                last = clip
            elif of_clip != last:
                return clip
        return None


@dataclass(frozen=True)
class _Layer:
    """The base or a further layer: its tars, indexes and ledger fragments, and the record that lists them.

    ``file`` is the record's name in the dataset, ``done`` the outcome of the clips that are in a tar.
    """

    root: Path
    name: str
    file: str
    record: DatasetRecord | LayerRecord
    done: str
    remedy: str

    def fragment(self, part: int) -> Path:
        if self.name == BASE_LAYER:
            return ledger_path(self.root, part)
        return layer_ledger_path(self.root, self.name, part)

    def fragment_file(self, part: int) -> str:
        return str(self.fragment(part).relative_to(self.root))

    def known_files(self, blocks: int) -> set[Path]:
        """The fragments, and the tars and indexes that the record lists or, as long as it lists none, a fragment commits."""
        known = {self.fragment(part) for part in range(blocks)}
        parts = {file.part for file in self.record.shards}
        if not self.record.complete:
            parts |= {part for part in range(blocks) if _exists(self.fragment(part))}
        for part in parts:
            known |= {tar_path(self.root, part, self.name), index_path(self.root, part, self.name)}
        return known

    def check_record(self, blocks: int) -> Iterator[Problem]:
        """A finished record lists the tar of every part exactly once, and every ledger fragment."""
        if not self.record.complete:
            yield Problem(self.file, None, f"the run is not finished; {self.remedy} to resume it")
        listed = Counter((file.layer, file.part) for file in self.record.shards)
        expected = {(self.name, part) for part in range(blocks)}
        for (layer, part), times in sorted(listed.items()):
            if times > 1:
                yield Problem(self.file, None, f"lists {part_name(part)}.{layer} {times} times")
            if (layer, part) not in expected:
                yield Problem(self.file, None, f"lists {part_name(part)}.{layer}, but there is no such part")
        if self.record.complete:
            if len(self.record.ledger) != blocks:
                yield Problem(self.file, None, f"lists {len(self.record.ledger)} ledger fragments of {blocks} blocks")
            for layer, part in sorted(expected - set(listed)):
                yield Problem(self.file, None, f"does not list {part_name(part)}.{layer}")

    def check_part(self, part: int) -> tuple[_Fragment | None, list[Problem]]:
        """The ledger fragment of a part (``None`` if it cannot be read), and what is wrong with it, its tar and its index."""
        fragment, problems = self._read_fragment(part)
        files = [file for file in self.record.shards if (file.layer, file.part) == (self.name, part)]
        if not files and not self.record.complete and _exists(self.fragment(part)):
            # A run lists its shards when it ends; until then the fragment is what commits a part.
            try:
                files = [read_layer_file(self.root, part, self.name)]
            except DamageError as error:
                file = index_path(self.root, part, self.name).relative_to(self.root)
                problems.append(Problem(str(file), None, str(error)))
        for listed in files:
            keys, found = check_tar(self.root, listed, self.file)
            problems += found
            if fragment and keys is not None and list(keys) != fragment.done:
                message = _difference(keys, fragment.done, f"the {self.done} clips of the ledger")
                tar = tar_path(self.root, part, self.name).relative_to(self.root)
                problems.append(Problem(str(tar), None, message))
        return fragment, problems

    def _read_fragment(self, part: int) -> tuple[_Fragment | None, list[Problem]]:
        path, file = self.fragment(part), self.fragment_file(part)
        if not _exists(path):
            return None, [Problem(file, None, f"the ledger fragment of block {part} is missing; {self.remedy}")]
        problems = []
        listed = self.record.ledger
        try:
            if part < len(listed) and hashlib.sha256(read_bytes(path)).hexdigest() != listed[part]:
                problems.append(Problem(file, None, f"altered since the run ended: sha256 differs from {self.file}"))
            with pq.ParquetFile(parquet_source(path), page_checksum_verification=True) as parquet:
                table = parquet.read()  # every column, so that every page's checksum is checked
                stated = int(parquet.schema_arrow.metadata[b"rows"])
            columns = (table.column(name).to_pylist() for name in ("clip_id", "outcome", "shard_sample"))
            clips, outcomes, positions = columns
            # Only the base has clips with further windows.
            of_clips = table["of_clip"].to_pylist() if "of_clip" in table.column_names else [None] * len(clips)
            if not all(isinstance(clip, str) for clip in clips):
                raise ValueError("column clip_id is not text")
        except Exception as error:  # pyarrow reports a damaged file by half a dozen unrelated exception types
            message = f"unreadable ledger fragment ({type(error).__name__}: {error}); delete it and {self.remedy}"
            return None, [*problems, Problem(file, None, message)]
        if len(clips) != stated:
            problems.append(Problem(file, None, f"holds {len(clips)} rows, states {stated}"))
        if len(set(clips)) != len(clips):
            problems.append(Problem(file, None, "lists a clip more than once"))
        rows = [row for row, outcome in enumerate(outcomes) if outcome == self.done]
        if [positions[row] for row in rows] != list(range(len(rows))):
            problems.append(Problem(file, None, f"the {self.done} clips are not numbered 0, 1, 2, … in shard_sample"))
        return _Fragment(clips, [clips[row] for row in rows], of_clips), problems


def _load_layers(root: Path, base: DatasetRecord) -> tuple[list[_Layer], list[Problem]]:
    layers, problems = [], []
    for name in layer_names(root):
        file = str(layer_record_path(root, name).relative_to(root))
        remedy = f"run the same `faceloom encode --layer {name}` command again"
        try:
            layers.append(_Layer(root, name, file, LayerRecord.load(root, name, base), "encoded", remedy))
        except UserError as error:
            problems.append(Problem(file, None, str(error)))
    return layers, problems


def _base_remedy(record: DatasetRecord) -> str:
    command = "curate"
    if record.repacked:
        command = "shards repack"
    if "redecided_from" in record.config:
        command = "audit apply"
    return f"run the same `faceloom {command}` command again"


def _check_strays(root: Path, blocks: int, base: _Layer, layers: Sequence[_Layer]) -> Iterator[Problem]:
    """Files that no run leaves behind: unfinished writes, and shards or fragments that nothing accounts for."""
    known = base.known_files(blocks).union(*(layer.known_files(blocks) for layer in layers))
    # Of a layer whose record cannot be trusted nothing is known, so none of its files can be called one too many.
    distrusted = set(layer_names(root)) - {layer.name for layer in layers}
    folders = [root / SHARD_FOLDER, root / LEDGER_FOLDER]
    if _exists(root / LAYERS_FOLDER):
        known |= {layer_record_path(root, name) for name in layer_names(root)}
        known |= {root / LAYERS_FOLDER / name for name in layer_names(root)}
        folders += [root / LAYERS_FOLDER, *(root / LAYERS_FOLDER / layer.name for layer in layers)]
    for folder in (root, *folders):
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            if blocks:
                yield Problem(str(folder.relative_to(root)), None, cannot_read(error))
            continue
        for path in paths:
            file = str(path.relative_to(root))
            if is_temporary(path):
                message = f"left by a write that was interrupted; {base.remedy}, or delete it"
                yield Problem(file, None, message)
            elif folder != root and path not in known and _layer_of(path) not in distrusted:
                yield Problem(file, None, "unexpected file: neither listed nor committed by a ledger fragment")


def _layer_of(path: Path) -> str:
    """The layer in the name of a tar or index, ``part-00042.latents.tar``; empty for other files."""
    return path.stem.partition(".")[2]


def _difference(keys: Sequence[str], expected: Sequence[str], what: str) -> str:
    missing, extra = sorted(set(expected) - set(keys)), sorted(set(keys) - set(expected))
    if not missing and not extra:
        return "its samples are not in the order of the ledger"
    parts = [f"lacks {', '.join(missing)}" if missing else "", f"holds {', '.join(extra)} unasked" if extra else ""]
    return f"differs from {what}: {'; '.join(part for part in parts if part)}"


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except OSError:
        return False
    return True
