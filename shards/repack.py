"""The same samples in other shards: of one size, in another order, or only those that a condition on the ledger holds for.

Or in the same shards under another ledger, which keeps fewer of them.

The bytes of every member are copied as they are, each checked against its crc32c on the way. The new dataset is
built beside its final place and moved there when it is whole: an interrupted repack leaves no dataset, and may be run again.
"""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from shards.storage import make_folder, move_folder, parquet_source, read_bytes, write_atomic
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
    record, layers = open_source(dataset, out)
    with _built(dataset, out) as unfinished:
        base, *others = _load_ledgers(dataset, record, layers)
        order = _select(base, where)
        if shuffle is not None:
            order = order[permutation(len(order), "repack", shuffle)]
        parts = [order[start : start + samples_per_shard] for start in range(0, len(order), samples_per_shard)]
        origin = {"base": record.checksum, "samples_per_shard": samples_per_shard, "shuffle": shuffle, "where": where}
        before = {name: record.config[name] for name in ("repacked_from",) if name in record.config}
        manifest = ManifestSummary(
            sha256=record.manifest.sha256, clips=len(order), blocks=len(parts), block_clips=samples_per_shard
        )
        update = {
            "config": {**record.config, "repacked_from": origin | before},
            "licences": _licences(record, base, parts),
            "manifest": manifest,
        }
        _write(unfinished, record.model_copy(update=update), [(layer, parts) for layer in (base, *others)])
    return _repacked(len(order), len(parts), (base, *others), layers)


def rewrite(dataset: Path, out: Path, ledger: pa.Table, config: Mapping[str, Any]) -> Repacked:
    """Write ``dataset`` with its complete layers as a new dataset ``out`` under another ledger, which keeps fewer clips.

    ``ledger`` has a row for each row of the ledger of ``dataset``, in order. Every part has the rows that it had, and the
    samples of those that are kept still. The fingerprints and the manifest are those of ``dataset``; ``config`` is what the
    new record says, with ``redecided_from`` added: where it came from.

    Raises :class:`UserError` as :func:`repack` does, and ``ValueError`` if ``ledger`` is of other rows.
    """
    record, layers = open_source(dataset, out)
    with _built(dataset, out) as unfinished:
        _, *others = _load_ledgers(dataset, record, layers)
        rows, part = _read_base_ledger(dataset, record)
        if not ledger["clip_id"].combine_chunks().equals(rows["clip_id"].combine_chunks()):
            raise ValueError("the new ledger is not of the same clips in the same order")
        was_kept, kept = (pc.equal(table["outcome"], "kept").to_numpy() for table in (rows, ledger))
        base = _Layer(dataset, BASE_LAYER, record, "kept", ledger, part)
        of_base = [np.flatnonzero(part == number) for number in range(record.manifest.blocks)]
        # The rows of a layer are those of the samples that there were.
        still, part_of_sample = kept[was_kept], part[was_kept]
        of_layers = [np.flatnonzero(still & (part_of_sample == number)) for number in range(record.manifest.blocks)]
        before = {name: record.config[name] for name in ("redecided_from",) if name in record.config}
        origin = {"base": record.checksum} | before
        rewritten = record.model_copy(update={"config": {**config, "redecided_from": origin}})
        _write(unfinished, rewritten, [(base, of_base), *((layer, of_layers) for layer in others)])
    return _repacked(int(np.count_nonzero(kept)), len(of_base), (base, *others), layers)


def open_source(dataset: Path, out: Path) -> tuple[DatasetRecord, list[LayerRecord]]:
    """The records of a dataset and of its layers, finished or not.

    Raises :class:`UserError` if the dataset is absent or incomplete, or if ``out`` exists.
    """
    record = DatasetRecord.load(dataset)
    if not record.complete:
        raise UserError(f"{dataset} is not complete; run the same `faceloom curate` command again to finish it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; name another folder with --out, or delete it")
    return record, [LayerRecord.load(dataset, name, record) for name in layer_names(dataset)]


@contextmanager
def _built(dataset: Path, out: Path) -> Iterator[Path]:
    """A folder to build a dataset in, which becomes ``out`` at the end; without a trace if it fails."""
    out = out.absolute()
    unfinished = out.with_name(f".{out.name}.faceloom-repack")
    try:
        if unfinished.exists():
            shutil.rmtree(unfinished)
        try:
            yield unfinished
            move_folder(unfinished, out)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    except DamageError as error:
        raise UserError(f"{error}; see what else is damaged with: faceloom verify {dataset}") from None
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out, or make room") from None


def _repacked(samples: int, shards: int, written: Sequence["_Layer"], layers: Sequence[LayerRecord]) -> Repacked:
    return Repacked(
        samples=samples,
        shards=shards,
        layers=tuple(layer.name for layer in written),
        left_out=tuple(layer.layer for layer in layers if not layer.complete),
    )


@dataclass(frozen=True)
class _Layer:
    """A layer to copy from, with rows of its ledger."""

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


def _read_base_ledger(root: Path, record: DatasetRecord) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    return _read_ledger([ledger_path(root, part) for part in range(record.manifest.blocks)], record.ledger)


def _load_ledgers(root: Path, record: DatasetRecord, layers: Sequence[LayerRecord]) -> list[_Layer]:
    """The base and those layers that are complete; row n is that of kept clip n of the dataset in each of them."""
    rows, part = _read_base_ledger(root, record)
    kept = pc.equal(rows["outcome"], "kept").to_numpy()
    base = _Layer(root, BASE_LAYER, record, "kept", rows.filter(pa.array(kept)), part[kept])
    found = [base]
    for layer in layers:
        if not layer.complete:
            continue
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
        tables.append(pq.read_table(parquet_source(path)))
    if not tables:
        raise UserError("this dataset has no clips")
    return pa.concat_tables(tables), np.repeat(np.arange(len(tables)), [len(table) for table in tables])


def _check_sha256(path: Path, listed: str) -> None:
    try:
        found = hashlib.sha256(read_bytes(path)).hexdigest()
    except OSError as error:
        raise DamageError(f"{path}: {error.strerror}") from None
    if found != listed:
        raise DamageError(f"{path}: its sha256 differs from the one that the dataset lists")


def _select(base: _Layer, where: str | None) -> npt.NDArray[np.int64]:
    """The numbers of the rows for which ``where`` holds, ascending."""
    chosen = np.ones(len(base.rows), bool)
    if where is not None:
        import duckdb  # only needed here, and slow to import

        from shards.closed_sql import closed_database

        try:
            with closed_database({"ledger": base.rows}) as connection:
                clips = connection.sql(f"SELECT clip_id FROM ledger WHERE (\n{where}\n)").fetchnumpy()["clip_id"]  # noqa: S608
        except (duckdb.Error, KeyError) as error:
            raise UserError(f"--where {where}: {error}") from None
        chosen = pc.is_in(base.rows["clip_id"], pa.array(clips.tolist(), pa.string())).to_numpy()
    if not chosen.any():
        raise UserError(
            f"none of the {len(base.rows)} kept clips meets: {where}" if where else "the dataset has no kept clips"
        )
    return np.flatnonzero(chosen)


def _write(out: Path, record: DatasetRecord, layers: Sequence[tuple[_Layer, Sequence[npt.NDArray[np.int64]]]]) -> None:
    """Write all of the new dataset: of each layer, the base first, the rows of each part; ``dataset.json`` last."""

    def write_parts(layer: _Layer, parts: Sequence[npt.NDArray[np.int64]], run: str) -> dict[str, Any]:
        written = [layer.write_part(out, part, numbers, run) for part, numbers in enumerate(parts)]
        return {"shards": tuple(file for file, _ in written), "ledger": tuple(sha256 for _, sha256 in written)}

    make_folder(out)
    (base, base_parts), *others = layers
    written = record.model_copy(update=write_parts(base, base_parts, record.config_fingerprint))
    for layer, parts in others:
        assert isinstance(layer.record, LayerRecord)
        of_new_base = layer.record.model_copy(update={"base": written.checksum})
        of_new_base.model_copy(update=write_parts(layer, parts, of_new_base.run)).save(out)
    written.save(out)


def _licences(record: DatasetRecord, base: _Layer, parts: Sequence[npt.NDArray[np.int64]]) -> tuple[str, ...]:
    """The licences of the samples that are taken, by the ledger; all those of the dataset if it has no such column."""
    if "licence" not in base.rows.column_names:
        return record.licences
    return tuple(sorted(base.rows["licence"].take(pa.array(np.concatenate(parts))).unique().to_pylist()))
