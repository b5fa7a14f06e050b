"""How large a dataset is: shards, samples and bytes, by layer and by field."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from faceloom.errors import UserError
from shards.dataset import DatasetRecord, LayerFile, index_path, ledger_path
from shards.index import DamageError, read_layer_file
from shards.layers import LayerRecord, layer_ledger_path, layer_names
from shards.schema import BASE_LAYER
from shards.storage import parquet_source


@dataclass(frozen=True)
class FieldStats:
    """One field of a layer: how many samples have it, and its bytes in the tars, headers of the tar not counted."""

    field: str
    samples: int
    bytes: int
    mean_bytes: float


@dataclass(frozen=True)
class LayerStats:
    """One layer. Of an unfinished one, the parts committed so far are counted.

    ``bytes`` are those of the tars. The samples of its shards are given as minimum, median and maximum, 0 without shards.
    """

    layer: str
    complete: bool
    fingerprint: str
    shards: int
    parts: int
    """How many shards it has when it is complete."""
    samples: int
    bytes: int
    shard_samples_min: int
    shard_samples_median: float
    shard_samples_max: int
    fields: tuple[FieldStats, ...]


def stats(dataset: Path) -> list[LayerStats]:
    """The base and then the other layers by name. Reads the records and the indexes, and no tar.

    Raises :class:`UserError` for a dataset that is absent, and for a record or an index that cannot be read.
    """
    base = DatasetRecord.load(dataset)
    parts = range(base.manifest.blocks)
    try:
        files = base.shards or _committed(dataset, BASE_LAYER, [ledger_path(dataset, part) for part in parts])
        found = [_layer_stats(dataset, BASE_LAYER, base.complete, base.config_fingerprint, len(parts), files)]
        for name in layer_names(dataset):
            layer = LayerRecord.load(dataset, name, base)
            files = layer.shards or _committed(
                dataset, name, [layer_ledger_path(dataset, name, part) for part in parts]
            )
            found.append(_layer_stats(dataset, name, layer.complete, layer.fingerprint, len(parts), files))
    except DamageError as error:
        raise UserError(f"{error}; see what else is damaged with: faceloom verify {dataset}") from None
    return found


def _committed(root: Path, layer: str, fragments: Sequence[Path]) -> tuple[LayerFile, ...]:
    return tuple(read_layer_file(root, part, layer) for part, path in enumerate(fragments) if path.is_file())


def _layer_stats(
    root: Path, layer: str, complete: bool, fingerprint: str, parts: int, files: Sequence[LayerFile]
) -> LayerStats:
    samples = [file.samples for file in files]
    return LayerStats(
        layer=layer,
        complete=complete,
        fingerprint=fingerprint,
        shards=len(files),
        parts=parts,
        samples=sum(samples),
        bytes=sum(file.bytes for file in files),
        shard_samples_min=min(samples, default=0),
        shard_samples_median=statistics.median(samples) if samples else 0,
        shard_samples_max=max(samples, default=0),
        fields=tuple(_field_stats(root, files)),
    )


def _field_stats(root: Path, files: Sequence[LayerFile]) -> Iterator[FieldStats]:
    """The fields in the order of the members."""
    totals: dict[str, tuple[int, int]] = {}
    for file in files:
        path = index_path(root, file.part, file.layer)
        try:
            table = pq.read_table(parquet_source(path), columns=["field", "nbytes"])
        except (OSError, pa.ArrowException, KeyError) as error:
            raise DamageError(f"{path}: unreadable index ({error})") from error
        grouped = table.group_by("field", use_threads=False).aggregate([("nbytes", "sum"), ("nbytes", "count")])
        for row in grouped.to_pylist():
            samples, nbytes = totals.get(row["field"], (0, 0))
            totals[row["field"]] = (samples + row["nbytes_count"], nbytes + row["nbytes_sum"])
    for field, (samples, nbytes) in totals.items():
        yield FieldStats(field, samples, nbytes, nbytes / samples)
