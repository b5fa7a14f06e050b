"""SQL over what a dataset says of itself: read-only, and blind to everything else on the machine.

The files are read lazily through Arrow, by this process and not by DuckDB, whose own access to files, extensions and the
program around it is switched off before the query is seen.
"""

import csv
import io
import math
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from curation.views import views
from faceloom.errors import UserError
from shards.closed_sql import closed_database


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
    tables = views(dataset, manifest)
    with closed_database(tables) as connection:
        try:
            statements = connection.extract_statements(query)
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise UserError(f"only one SELECT can be asked, not: {query.strip() or 'nothing'}")
            found = connection.execute(statements[0])
            names = tuple(str(column[0]) for column in found.description or ())
            return Answer(names, tuple(found.fetchall()))
        except duckdb.CatalogException as error:
            hint = "" if "manifest" in tables else "; manifest needs --manifest FILE"
            raise UserError(f"{error}\nthere are the views {', '.join(tables)}{hint}") from None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise UserError(f"the query cannot be answered: {error}") from None


def _json_value(value: object) -> object:
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_json_value(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _json_value(each) for key, each in value.items()}
    return value if isinstance(value, bool | int | str | None) else str(value)
