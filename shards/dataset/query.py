"""Questions to the sample index, asked with DuckDB over the Delta table's Arrow scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds
    from deltalake import DeltaTable


def connect(*, memory_limit: str = "2GB") -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that can read what is registered with it and nothing else (no files, no network).

    Args:
        memory_limit: DuckDB's own limit; larger sorts spill to the temporary folder.
    """
    import tempfile

    import duckdb

    database = duckdb.connect(":memory:")
    database.execute(f"SET temp_directory = '{tempfile.gettempdir()}'")
    database.execute(f"SET memory_limit = '{memory_limit}'")
    database.execute("SET enable_progress_bar = false")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def scan(table: DeltaTable, *, dictionaries: Sequence[str] = ()) -> ds.Dataset:
    """The table as an Arrow dataset: columns and row groups are read only where a query needs them.

    Args:
        table: The table.
        dictionaries: Columns of few values to read as dictionaries: grouping by one is ten times as fast.
    """
    import pyarrow.dataset as ds
    from pyarrow import fs

    local = table.table_uri.removeprefix("file://")
    # Arrow's own file system where it can be: the other one's threads call into an interpreter that may be ending.
    files = fs.SubTreeFileSystem(unquote(local), fs.LocalFileSystem()) if local.startswith("/") else None
    options = ds.ParquetReadOptions(dictionary_columns=set(dictionaries))
    return table.to_pyarrow_dataset(filesystem=files, parquet_read_options=options)


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
