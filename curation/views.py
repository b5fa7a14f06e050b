"""What a dataset says of itself, as tables over all its parts that are read only as far as they are asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from curation.ledger import SCHEMA as LEDGER_SCHEMA
from curation.ledger import TELEMETRY_FOLDER, TELEMETRY_SCHEMA
from curation.sources import SCHEMA as MANIFEST_SCHEMA
from curation.sources import open_manifest
from faceloom.errors import UserError
from faceloom.location import is_remote
from shards.dataset import LEDGER_FOLDER, SHARD_FOLDER, DatasetRecord
from shards.index import INDEX_SCHEMA
from shards.storage import is_temporary, parquet_source


def views(dataset: Path, manifest: Path | None = None) -> dict[str, ds.Dataset]:
    """``ledger``, ``samples``, ``telemetry`` and, if it is given, ``manifest``; nothing is read yet.

    ``ledger`` is every fragment, with its ``part``; ``samples`` the index of every layer, with ``part`` and ``layer``;
    ``telemetry`` what each stage of each clip cost, with ``part``, and empty where a dataset has none. Raises
    :class:`UserError` if there is no dataset, or if ``manifest`` is not the one it was curated from.
    """
    record = DatasetRecord.load(dataset)
    ledger, telemetry, indexes = (_parts(dataset / name) for name in (LEDGER_FOLDER, TELEMETRY_FOLDER, SHARD_FOLDER))
    layer = (pa.field("layer", pa.string()), [path.stem.partition(".")[2] for path in indexes])
    tables = {
        "ledger": _dataset(ledger, _schema(ledger, LEDGER_SCHEMA), _part(ledger)),
        "samples": _dataset(indexes, INDEX_SCHEMA, _part(indexes), layer),
        "telemetry": _dataset(telemetry, TELEMETRY_SCHEMA, _part(telemetry)),
    }
    if manifest is not None:
        opened = open_manifest(manifest)
        if opened.sha256 != record.manifest.sha256:
            raise UserError(f"{manifest} is not the manifest that {dataset} was curated from; give that one")
        tables["manifest"] = _dataset([opened.file], _schema([opened.file], MANIFEST_SCHEMA))
    return tables


_Constant = tuple[pa.Field, Sequence[int | str]]
"""A column that each file has one value of, and these values."""


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("part-*.parquet") if not is_temporary(path))


def _part(paths: Sequence[Path]) -> _Constant:
    numbers = [int(path.name.removeprefix("part-").partition(".")[0]) for path in paths]
    return pa.field("part", pa.int32()), numbers


def _schema(paths: Sequence[Path], default: pa.Schema) -> pa.Schema:
    if not paths:
        return default
    try:
        return pq.read_schema(parquet_source(paths[0])).remove_metadata()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{paths[0]} cannot be read ({error}); see what is damaged with: faceloom verify") from None


def _dataset(paths: Sequence[Path], schema: pa.Schema, *constants: _Constant) -> ds.Dataset:
    """The files as one table; each adds its own value of the columns ``constants``."""
    for field, _ in constants:
        schema = schema.append(field)
    if not paths:
        return ds.dataset(schema.empty_table())
    holds = []
    for number in range(len(paths)):
        condition = pc.scalar(True)
        for field, values in constants:
            condition &= pc.field(field.name) == values[number]
        holds.append(condition)
    return ds.FileSystemDataset.from_paths(
        [_key(path) for path in paths],
        schema=schema,
        format=ds.ParquetFileFormat(),
        filesystem=_filesystem(paths[0]),
        partitions=holds,
    )


def _key(path: Path) -> str:
    """A path as its file system names it."""
    remote: Any = path
    return str(remote.path if is_remote(path) else path.absolute())


def _filesystem(path: Path) -> pyarrow.fs.FileSystem:
    remote: Any = path
    if not is_remote(path):
        return pyarrow.fs.LocalFileSystem()
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(remote.fs))
