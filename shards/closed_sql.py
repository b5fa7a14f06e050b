"""A DuckDB that sees the tables it is given and nothing else: no files, no network, no extensions, no program."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb

_CLOSED = (
    "enable_external_access=false",
    "python_enable_replacements=false",
    "enable_progress_bar=false",
    "lock_configuration=true",
)


@contextmanager
def closed_database(tables: Mapping[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to a database in memory with ``tables`` (Arrow tables or datasets) as views, closed before any query."""
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        for setting in _CLOSED:
            connection.execute(f"SET {setting}")
        yield connection
