"""Questions to the sample index, asked with DuckDB over the Delta table's Arrow scan."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote

from shards.dataset.bounds import without_null_bounds
from shards.dataset.store_errors import failures
from shards.errors import NotFoundError, SampleIndexError, StoreError
from shards.schema import index_schema, rejects_schema
from shards.store import open_store
from shards.store.calls import HINTS
from shards.store.driver import DriverError
from shards.store.options import redact
from shards.store.retry import attempt
from shards.store.settings import StoreSettings

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable
    from pyarrow import fs

Result = TypeVar("Result")

_LOOK: Final = "run `biovfm verify --deep` on the dataset"


def connect(
    *, memory_limit: str = "2GB", files: Sequence[str] = (), threads: int | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection that can read what is registered with it and nothing else (no other files, no network).

    Args:
        memory_limit: DuckDB's own limit; larger sorts spill to the temporary folder.
        files: Paths of files that it may read too.
        threads: Most threads of a question; one per core where None.
    """
    import os
    import tempfile
    import uuid

    import duckdb

    database = duckdb.connect(":memory:")
    # A folder that DuckDB makes when it spills and removes; queries may read what lies in it, so it holds nothing else.
    spill = Path(tempfile.gettempdir()) / f"biovfm-query-{uuid.uuid4().hex}"
    database.execute(f"SET temp_directory = {quote(str(spill))}")
    database.execute(f"SET memory_limit = '{memory_limit}'")
    database.execute("SET enable_progress_bar = false")
    if threads is not None and threads < (os.cpu_count() or 1):
        database.execute(f"SET threads = {threads}")
    if files:
        database.execute(f"SET allowed_paths = [{', '.join(map(quote, files))}]")
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


@contextmanager
def told_plainly(url: str) -> Iterator[None]:
    """Turn what DuckDB, Arrow and deltalake say of tables that cannot be read into one line.

    Args:
        url: The dataset.

    Raises:
        StoreError: The storage failed, after the retries that `storage_options` asks for.
        SampleIndexError: A file of a table is damaged or missing.
        KeyboardInterrupt: A signal came; DuckDB makes a RuntimeError of it.
    """
    import duckdb
    import pyarrow as pa
    from deltalake.exceptions import DeltaError

    mark = failures.mark()
    try:
        yield
    except RuntimeError as error:
        if str(error) != _INTERRUPTED:
            raise
        raise KeyboardInterrupt from error
    except (duckdb.InvalidInputException, pa.ArrowException, DeltaError, OSError) as error:
        failed = failures.since(mark)
        if isinstance(failed, NotFoundError):
            raise SampleIndexError(failed.message, hint=_LOOK) from error
        if failed is not None:
            raise failed from error
        text = _plain(str(error))
        if any(word in text for word in _DENIED):
            raise StoreError(f"{url}: {text}", hint=HINTS["denied"]) from error
        if is_of_the_network(text):
            raise StoreError(f"{url}: {text}", hint=HINTS["transient"]) from error
        if _OF_THE_MACHINE.search(text):
            raise StoreError(f"{url}: {text}", hint="check the free space, the rights and the disk") from error
        of_table = any(word in text for word in _OF_TABLES) or isinstance(error, pa.ArrowException)
        if not of_table or isinstance(error, DeltaError):
            raise
        raise SampleIndexError(f"{url}: {text}", hint=_LOOK) from error


_INTERRUPTED: Final = "Query interrupted"
_OF_TABLES: Final = ("registered as", "Kernel error", "Parquet", "deserialize thrift", "CRC checksum")
_OF_THE_MACHINE: Final = re.compile(r"\(os error (?!2\)|17\))\d+\)")
"""How Rust ends what the system said; a file that is not there, or there already, says something of the table."""


def ask_tables(url: str, question: Callable[[], Result]) -> Result:
    """Ask the tables of a dataset, and again where the storage failed, within the budget of the store.

    The client below repeats some requests by itself, and not those whose answer breaks off, nor writes whose
    connection is reset. A wait that is long gets a word on standard error.

    Args:
        url: The dataset.
        question: What to ask; may be called several times. It may raise `DriverError` to be asked again.

    Raises:
        StoreError: The storage failed.
        SampleIndexError: A file of a table is damaged or missing.
    """

    def once() -> Result:
        try:
            with told_plainly(url):
                return question()
        except StoreError as error:
            if is_of_the_network(error.message) and not any(word in error.message for word in _DENIED):
                raise DriverError("transient", error.message) from error
            raise

    if "://" not in url:
        with told_plainly(url):
            return question()
    try:
        return attempt(once, StoreSettings.from_environment(), what=f"the tables of {url}")
    except DriverError as error:
        raise StoreError(error.text, hint=HINTS["transient"]) from error


def is_of_the_network(text: str) -> bool:
    """Whether an error of DuckDB, Arrow or deltalake says that the storage failed."""
    return any(word in text for word in (*_DENIED, *_NETWORK))


_NETWORK = (
    "Generic S3 error",
    "Generic GCS error",
    "Generic MicrosoftAzure error",
    "error sending request",
    "response body error",
    "reading a body from connection",
    "error decoding response body",
)
_DENIED = ("lacked the necessary privileges", "the necessary authentication", "status code 401", "status code 403")


def _plain(text: str) -> str:
    """The message in one line, without colours and without the client's own way of drawing causes."""
    text = re.sub(r"\x1b\[[0-9;]*m|↳", "", text).partition("\n\nDebug source")[0]
    text = re.split(r"\s+0: (?=<unknown>|\w+::|\w+ at)", text)[0]  # a backtrace of the client's own
    return redact(" ".join(text.split()))[:400]


def scan(table: DeltaTable, *, dictionaries: Sequence[str] = ()) -> ds.Dataset:
    """The table as an Arrow dataset: columns and row groups are read only where a query needs them.

    Its files are read through Arrow's own file system where they lie on disk, else through the store.

    A table of an earlier release has null in the columns that came later.

    Args:
        table: The table.
        dictionaries: Columns of few values to read as dictionaries: grouping by one is ten times as fast.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow import fs

    local = table.table_uri.removeprefix("file://")
    on_disk = local.startswith("/")
    # Arrow's own file system where it can be: threads of the other one call into an interpreter that may be ending.
    files = fs.SubTreeFileSystem(unquote(local), fs.LocalFileSystem()) if on_disk else _remote_files(table)
    options = ds.ParquetReadOptions(dictionary_columns=set(dictionaries))
    found = without_null_bounds(table, table.to_pyarrow_dataset(filesystem=files, parquet_read_options=options))
    found.format.default_fragment_scan_options = ds.ParquetFragmentScanOptions(
        pre_buffer=not on_disk,  # on disk Arrow would read whole files ahead; the page cache serves as well
        page_checksum_verification=True,
    )
    later = [field for field in _columns_of(local) if field.name not in found.schema.names]
    return found.replace_schema(pa.schema([*found.schema, *later])) if later else found


def _remote_files(table: DeltaTable) -> fs.FileSystem:
    import pyarrow as pa

    from shards.dataset.arrow_files import arrow_files

    actions = pa.table(table.get_add_actions())
    paths, sizes = actions["path"].to_pylist(), actions["size_bytes"].to_pylist()
    return arrow_files(open_store(unquote(table.table_uri)), dict(zip(map(unquote, paths), sizes, strict=True)))


def _columns_of(url: str) -> Sequence[pa.Field]:
    """The columns that this release gives to a table; empty for tables of which it knows none."""
    makers = {"index": index_schema, "rejects": rejects_schema}
    make = makers.get(url.rstrip("/").rpartition("/")[2])
    return list(make()) if make else []


def quote(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"
