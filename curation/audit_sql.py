"""SQL over what a dataset says of itself: read-only, and blind to everything else on the machine.

The files are read lazily through Arrow, by this process and not by DuckDB, whose own access to files, extensions and the
program around it is switched off before the query is seen.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
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
from shards.dataset import LEDGER_FOLDER, SHARD_FOLDER, DatasetRecord
from shards.index import INDEX_SCHEMA
from shards.storage import is_temporary


@dataclass(frozen=True)
class Answer:
    """The rows of a query's result, and the names of its columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def as_json(self) -> list[dict[str, Any]]:
        """One object a row; what JSON has no word for is text, and NaN and infinity are null."""
        return [dict(zip(self.columns, map(_json_value, row), strict=True)) for row in self.rows]

    def as_csv(self) -> str:
        """A header and one line a row; null is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


def ask(dataset: Path, query: str, manifest: Path | None = None) -> Answer:
    """The answer to one SELECT over the views ``ledger``, ``samples``, ``telemetry`` and, if it is given, ``manifest``.

    ``ledger`` is every fragment, with its ``part``; ``samples`` the index of every layer, with ``part`` and ``layer``;
    ``telemetry`` what each stage of each clip cost, with ``part``, and empty where a dataset has none. Raises
    :class:`UserError` if the query is not one SELECT or fails, or if ``manifest`` is not the one of the dataset.
    """
    views = _views(dataset, manifest)
    with duckdb.connect() as connection:
        for name, table in views.items():
            connection.register(name, table)
        for setting in (
            "enable_external_access=false",
            "python_enable_replacements=false",
            "enable_progress_bar=false",
            "lock_configuration=true",
        ):
            connection.execute(f"SET {setting}")
        try:
            statements = connection.extract_statements(query)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise UserError(f"only one SELECT can be asked, not: {query.strip() or 'nothing'}")
            found = connection.execute(statements[0])
            names = tuple(str(column[0]) for column in found.description or ())
            return Answer(names, tuple(found.fetchall()))
        except duckdb.CatalogException as error:
            hint = "" if "manifest" in views else "; manifest needs --manifest FILE"
            raise UserError(f"{error}\nthere are the views {', '.join(views)}{hint}") from None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise UserError(f"the query cannot be answered: {error}") from None


def _views(dataset: Path, manifest: Path | None) -> dict[str, ds.Dataset]:
    record = DatasetRecord.load(dataset)
    ledger, telemetry, indexes = (_parts(dataset / name) for name in (LEDGER_FOLDER, TELEMETRY_FOLDER, SHARD_FOLDER))
    layer = (pa.field("layer", pa.string()), [path.stem.partition(".")[2] for path in indexes])
    views = {
        "ledger": _dataset(ledger, _schema(ledger, LEDGER_SCHEMA), _part(ledger)),
        "samples": _dataset(indexes, INDEX_SCHEMA, _part(indexes), layer),
        "telemetry": _dataset(telemetry, TELEMETRY_SCHEMA, _part(telemetry)),
    }
    if manifest is not None:
        if open_manifest(manifest).sha256 != record.manifest.sha256:
            raise UserError(f"{manifest} is not the manifest that {dataset} was curated from; give that one")
        views["manifest"] = _dataset([manifest], _schema([manifest], MANIFEST_SCHEMA))
    return views


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
        return pq.read_schema(paths[0]).remove_metadata()
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
        [str(path.absolute()) for path in paths],
        schema=schema,
        format=ds.ParquetFileFormat(),
        filesystem=pyarrow.fs.LocalFileSystem(),
        partitions=holds,
    )


def _json_value(value: object) -> object:
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _json_value(each) for key, each in value.items()}
    return value if isinstance(value, bool | int | str | None) else str(value)
