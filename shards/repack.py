"""The same samples in other shards: of one size, in another order, or only those that a condition on the ledger holds for.

The bytes of every member are copied as they are, each checked against its crc32c on the way. The new dataset is
built beside its final place and moved there when it is whole: an interrupted repack leaves no dataset, and may be run again.
"""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from faceloom.errors import UserError
from shards.dataset import DatasetRecord, LayerFile, ManifestSummary, index_path, ledger_path, tar_path
from shards.index import DamageError, Entry, read_field, read_index
from shards.layers import LayerRecord, layer_ledger_path, layer_names
from shards.plan import permutation
from shards.schema import BASE_LAYER
from shards.storage import make_folder, move_folder, write_atomic
from shards.writer import write_layer


@dataclass(frozen=True)
class Repacked:
    """What a repack made. ``left_out`` are the layers that were not complete, and are not in it."""

    samples: int
    shards: int
    layers: tuple[str, ...]
    left_out: tuple[str, ...]


def repack(
    dataset: Path, out: Path, samples_per_shard: int, shuffle: int | None = None, where: str | None = None
) -> Repacked:
    """Write the kept samples of ``dataset``, with all its complete layers, as a new dataset ``out``.

    Every shard but the last has ``samples_per_shard`` samples. They keep their order, or are permuted among all shards by the
    seed ``shuffle``. ``where`` is a SQL condition (DuckDB) on the columns of the ledger: only the clips that it holds for
    are taken. The ledger of the new dataset has their rows and no others. Its fingerprints are those of ``dataset``; its
    config says under ``repacked_from`` where it came from and how.

    Raises :class:`UserError` if ``dataset`` is absent, incomplete or damaged, if ``out`` exists, or if no clip is selected.
    """
    out = out.absolute()
    record = DatasetRecord.load(dataset)
    if not record.complete:
        raise UserError(f"{dataset} is not complete; run the same `faceloom curate` command again to finish it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; name another folder with --out, or delete it")
    layers = [LayerRecord.load(dataset, name, record) for name in layer_names(dataset)]
    try:
        base, *others = _load_ledgers(dataset, record, [layer for layer in layers if layer.complete])
        order = _select(base, where)
        if shuffle is not None:
            order = order[permutation(len(order), "repack", shuffle)]
        parts = [order[start : start + samples_per_shard] for start in range(0, len(order), samples_per_shard)]
        origin = {"base": record.checksum, "samples_per_shard": samples_per_shard, "shuffle": shuffle, "where": where}
        unfinished = out.with_name(f".{out.name}.faceloom-repack")
        if unfinished.exists():
            shutil.rmtree(unfinished)
        try:
            _write(unfinished, record, base, others, parts, origin)
            move_folder(unfinished, out)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    except DamageError as error:
        raise UserError(f"{error}; see what else is damaged with: faceloom verify {dataset}") from None
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out, or make room") from None
    return Repacked(
        samples=len(order),
        shards=len(parts),
        layers=tuple(layer.name for layer in (base, *others)),
        left_out=tuple(layer.layer for layer in layers if not layer.complete),
    )


@dataclass(frozen=True)
class _Layer:
    """A layer to copy from. Row n of ``rows`` is the ledger row of kept clip n of the dataset, in every layer alike."""

    root: Path
    name: str
    record: DatasetRecord | LayerRecord
    done: str
    """The outcome of the clips that are in a tar."""
    rows: pa.Table
    part: npt.NDArray[np.int64]
    """The part each row is from."""

    @cached_property
    def _files(self) -> dict[int, LayerFile]:
        return {file.part: file for file in self.record.shards if file.layer == self.name}

    def write_part(self, out: Path, part: int, numbers: npt.NDArray[np.int64], run: str) -> tuple[LayerFile, str]:
        """Write the rows ``numbers`` as one part of ``out``: tar, index, ledger fragment, of which the sha256 is returned.

        ``run`` says in the fragment what made the layer.
        """
        rows = self.rows.take(pa.array(numbers))
        done = pc.equal(rows["outcome"], self.done).to_numpy()
        positions = pa.array(np.cumsum(done) - 1, pa.int32(), mask=~done)
        column = rows.schema.get_field_index("shard_sample")
        rows = rows.set_column(column, rows.schema.field(column), positions)
        rows = rows.replace_schema_metadata({"rows": str(len(rows)), "run": run})
        file = write_layer(out, part, self.name, self._samples(numbers[done]))
        path = ledger_path(out, part) if self.name == BASE_LAYER else layer_ledger_path(out, self.name, part)
        make_folder(path.parent)
        write_atomic(path, lambda stream: pq.write_table(rows, stream, write_page_checksum=True))
        return file, hashlib.sha256(path.read_bytes()).hexdigest()

    def _samples(self, numbers: npt.NDArray[np.int64]) -> Iterator[tuple[str, dict[str, bytes]]]:
        # The indexes of the parts they come from, one after the other: a shuffle touches as many as a part has samples.
        keys = self.rows["clip_id"].take(pa.array(numbers)).to_pylist()
        parts = self.part[numbers].tolist()
        entries: dict[str, list[Entry]] = defaultdict(list)
        wanted = set(keys)
        for part in sorted(set(parts)):
            for entry in self._read_index(part):
                if entry.key in wanted:
                    entries[entry.key].append(entry)
        for key, part in zip(keys, parts, strict=True):
            tar = tar_path(self.root, part, self.name)
            if not entries[key]:
                raise DamageError(f"{tar} does not hold {key}, which the ledger says it does")
            yield key, {entry.field: read_field(tar, entry) for entry in entries[key]}

    def _read_index(self, part: int) -> Sequence[Entry]:
        path = index_path(self.root, part, self.name)
        _check_sha256(path, self._files[part].index_sha256)
        return read_index(path).entries


def _load_ledgers(root: Path, record: DatasetRecord, layers: Sequence[LayerRecord]) -> list[_Layer]:
    """The base and the layers with their ledgers, rows aligned."""
    fragments = [ledger_path(root, part) for part in range(record.manifest.blocks)]
    rows, part = _read_ledger(fragments, record.ledger)
    kept = pc.equal(rows["outcome"], "kept").to_numpy()
    base = _Layer(root, BASE_LAYER, record, "kept", rows.filter(pa.array(kept)), part[kept])
    found = [base]
    for layer in layers:
        fragments = [layer_ledger_path(root, layer.layer, number) for number in range(record.manifest.blocks)]
        rows, part = _read_ledger(fragments, layer.ledger)
        if rows["clip_id"].to_pylist() != base.rows["clip_id"].to_pylist() or not np.array_equal(part, base.part):
            raise DamageError(f"{fragments[0].parent}: does not list the kept clips of the base, in their order")
        found.append(_Layer(root, layer.layer, layer, "encoded", rows, part))
    return found


def _read_ledger(fragments: Sequence[Path], sha256: Sequence[str]) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """All rows, and the part each is from."""
    tables = []
    for path, listed in zip(fragments, sha256, strict=True):
        _check_sha256(path, listed)
        tables.append(pq.read_table(path))
    if not tables:
        raise UserError("this dataset has no clips")
    return pa.concat_tables(tables), np.repeat(np.arange(len(tables)), [len(table) for table in tables])


def _check_sha256(path: Path, listed: str) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DamageError(f"{path}: {error.strerror}") from None
    if found != listed:
        raise DamageError(f"{path}: its sha256 differs from the one that the dataset lists")


def _select(base: _Layer, where: str | None) -> npt.NDArray[np.int64]:
    """The numbers of the rows for which ``where`` holds, ascending."""
    chosen = np.ones(len(base.rows), bool)
    if where is not None:
        import duckdb  # only needed here, and slow to import

        try:
            with duckdb.connect() as connection:
                connection.register("ledger", base.rows)
                clips = connection.sql(f"SELECT clip_id FROM ledger WHERE (\n{where}\n)").fetchnumpy()["clip_id"]  # noqa: S608
        except (duckdb.Error, KeyError) as error:
            raise UserError(f"--where {where}: {error}") from None
        chosen = pc.is_in(base.rows["clip_id"], pa.array(clips.tolist(), pa.string())).to_numpy()
    if not chosen.any():
        raise UserError(
            f"none of the {len(base.rows)} kept clips meets: {where}" if where else "the dataset has no kept clips"
        )
    return np.flatnonzero(chosen)


def _write(
    out: Path,
    record: DatasetRecord,
    base: _Layer,
    layers: Sequence[_Layer],
    parts: Sequence[npt.NDArray[np.int64]],
    origin: dict[str, Any],
) -> None:
    """Write all of the new dataset; ``dataset.json`` last."""

    def write_parts(layer: _Layer, run: str) -> dict[str, Any]:
        written = [layer.write_part(out, part, numbers, run) for part, numbers in enumerate(parts)]
        return {"shards": tuple(file for file, _ in written), "ledger": tuple(sha256 for _, sha256 in written)}

    make_folder(out)
    samples = sum(len(numbers) for numbers in parts)
    manifest = ManifestSummary(
        sha256=record.manifest.sha256, clips=samples, blocks=len(parts), block_clips=origin["samples_per_shard"]
    )
    before = {name: record.config[name] for name in ("repacked_from",) if name in record.config}
    update = {
        "config": {**record.config, "repacked_from": origin | before},
        "licences": _licences(record, base, parts),
        "manifest": manifest,
    }
    repacked = record.model_copy(update=update | write_parts(base, record.config_fingerprint))
    for layer in layers:
        assert isinstance(layer.record, LayerRecord)
        of_new_base = layer.record.model_copy(update={"base": repacked.checksum})
        of_new_base.model_copy(update=write_parts(layer, of_new_base.run)).save(out)
    repacked.save(out)


def _licences(record: DatasetRecord, base: _Layer, parts: Sequence[npt.NDArray[np.int64]]) -> tuple[str, ...]:
    """The licences of the samples that are taken, by the ledger; all those of the dataset if it has no such column."""
    if "licence" not in base.rows.column_names:
        return record.licences
    return tuple(sorted(base.rows["licence"].take(pa.array(np.concatenate(parts))).unique().to_pylist()))
