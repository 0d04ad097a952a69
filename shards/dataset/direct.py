"""Tables whose Parquet files DuckDB reads itself, where that gives the same rows as Arrow's scan at half the work.

What a question sees is the view `index_rows`. It begins as DuckDB's own reading of exactly the files of one version,
where they lie on disk and are laid out as commits write them; wherever that fails, `read_by_arrow` puts Arrow's scan
in its place, so that an error is told by one reader alone, and a fault of this one is no fault of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from shards.dataset.query import quote
from shards.schema import PARTITIONS

if TYPE_CHECKING:
    import duckdb
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

ROWS: Final = "index_rows"
"""The view that a question reads."""
_ARROW_ROWS: Final = "index_rows_of_arrow"
_MOST_FILES: Final = 2_000
"""DuckDB keeps the footers of all files at hand; beyond this many, a table waits for `biovfm compact`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectRows:
    """The files of a table that DuckDB may read itself.

    Attributes:
        files: Their paths; all that a connection has to allow.
        columns: The columns of the table, those among them that no file may have.
    """

    files: tuple[str, ...]
    columns: tuple[str, ...]


def direct_rows(table: DeltaTable, rows: ds.Dataset) -> DirectRows | None:
    """The files of a table for DuckDB; None where Arrow has to read them.

    Args:
        table: The table.
        rows: Arrow's scan of it (`shards.dataset.query.scan`).
    """
    root = unquote(table.table_uri.removeprefix("file://")).rstrip("/")
    if not root.startswith("/") or "=" in root:  # DuckDB would take `a=b` above the table for a partition
        return None
    if not rows.files or len(rows.files) > _MOST_FILES:
        return None
    if not all(_is_laid_out(file) for file in rows.get_fragments()):
        return None
    files = tuple(f"{root}/{name.lstrip('/')}" for name in rows.files)
    if not all(Path(file).is_file() for file in files):
        return None
    return DirectRows(files=files, columns=tuple(rows.schema.names))


def _is_laid_out(file: ds.Fragment) -> bool:
    """Whether a file's folders say which source and modality it has, as its entry in the log does."""
    import pyarrow.dataset as ds

    keys = ds.get_partition_keys(file.partition_expression)
    folders = Path(file.path).parts[:-1]
    return sorted(keys) == list(PARTITIONS) and folders == tuple(f"{name}={keys[name]}" for name in PARTITIONS)


def register_rows(database: duckdb.DuckDBPyConnection, rows: ds.Dataset, direct: DirectRows | None) -> None:
    """Make the view `index_rows`.

    Args:
        database: The connection; it allows `direct.files`.
        rows: Arrow's scan.
        direct: The same table for DuckDB, where it may read the files itself.
    """
    import duckdb

    database.register(_ARROW_ROWS, rows)
    database.execute(f"CREATE TEMP VIEW {ROWS} AS FROM {_ARROW_ROWS}")
    if direct is None:
        return
    try:
        database.execute(f"CREATE TEMP VIEW {ROWS}_of_files AS {_reading(database, direct)}")
        if _columns(database, f"{ROWS}_of_files") == _columns(database, _ARROW_ROWS):
            database.execute(f"CREATE OR REPLACE TEMP VIEW {ROWS} AS FROM {ROWS}_of_files")
    except duckdb.Error:  # a damaged file, one that has just gone: Arrow says what is wrong
        return


def read_by_arrow(database: duckdb.DuckDBPyConnection) -> bool:
    """Let Arrow read the table from now on; False where it did so already."""
    sql = "SELECT count(*) FROM duckdb_views() WHERE view_name = ? AND sql LIKE ?"
    ((num,),) = database.execute(sql, [ROWS, f"%{ROWS}_of_files%"]).fetchall()
    if num:
        database.execute(f"CREATE OR REPLACE TEMP VIEW {ROWS} AS FROM {_ARROW_ROWS}")
    return bool(num)


def _reading(database: duckdb.DuckDBPyConnection, direct: DirectRows) -> str:
    types = "{" + ", ".join(f"{quote(name)}: VARCHAR" for name in PARTITIONS) + "}"
    options = f"hive_partitioning = true, hive_types = {types}, union_by_name = true"
    files = f"read_parquet([{_listed(direct.files)}], {options})"
    there = {name for name, _ in _columns(database, files)}
    columns = (f'"{name}"' if name in there else f'NULL::VARCHAR AS "{name}"' for name in direct.columns)
    return f"SELECT {', '.join(columns)} FROM {files}"  # noqa: S608 - the table's own columns and files


def _columns(database: duckdb.DuckDBPyConnection, rows: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in database.execute(f"DESCRIBE FROM {rows}").fetchall()]


def _listed(files: Sequence[str]) -> str:
    return ", ".join(quote(file) for file in files)
