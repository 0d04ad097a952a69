"""The Parquet files of the Delta tables, written row group by row group: memory does not grow with the rows.

deltalake's own writer takes hundreds of megabytes for rows that hold thumbnails. Here a file grows in a temporary
folder, goes into the table's folder by a conditional put, as shards do, and is then committed by its name. The name
follows from the job and the content, so that a try that is repeated makes the same file; what a crash leaves behind
is a file that no version of the table names.

Memory: one row group of about `GROUP_BYTES`, twice (as it came, and encoded).
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from shards.errors import AlreadyExistsError, SampleIndexError
from shards.schema import DISTINCT_COLUMNS
from shards.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Schema
    from deltalake.transaction import AddAction

GROUP_BYTES = 2 << 20
"""A row group: about 500 rows of fingerprints or 7,000 of the index."""
FILE_BYTES = 128 << 20
"""A file ends with the row group that reaches this size."""
_LAYOUT: Final[Mapping[str, Any]] = {"compression": "zstd", "write_page_checksum": True}
_LONGEST_BOUND = 64  # a longer text bounds nothing that anyone asks for
LOG_PROPERTIES: Mapping[str, str] = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}
"""What keeps the log of a table whole, whoever writes to it: it is how an old version is opened and where the jobs are
listed. By default a Delta writer that makes a checkpoint, at every hundredth commit, removes entries of more than
thirty days."""

Values = tuple[str, ...]


def write_files(
    store: Store, folder: str, job_id: str, rows: pa.RecordBatchReader, partition_by: Sequence[str] = ()
) -> list[AddAction]:
    """Write rows as the data files of a table; they count from the commit that adds them.

    Args:
        store: The dataset.
        folder: The table's folder in it.
        job_id: Goes into the files' names.
        rows: The rows, those of a partition one after the other (a partition that returns gets another file).
        partition_by: The table's partition columns, all of text; they stand in the paths, not in the files.

    Returns:
        What a commit needs to know of each file: its path, size, partition, and the bounds of its columns.
    """
    import pyarrow as pa

    schema = pa.schema([field for field in rows.schema if field.name not in partition_by])
    actions: list[AddAction] = []
    with tempfile.TemporaryDirectory(prefix="biovfm-") as scratch:
        file = Path(scratch) / "part.parquet"
        for values, pieces in groupby(_pieces(rows, partition_by), key=lambda piece: piece[0]):
            partition = dict(zip(partition_by, values, strict=True))
            batches = (batch for _, batch in pieces)
            for first in batches:  # each turn takes as many more as fill a file
                metadata = _write_file(file, schema, chain([first], batches))
                path = _name(partition, job_id, len(actions), file)
                with suppress(AlreadyExistsError):  # named after its content: the same bytes
                    store.put_if_absent(f"{folder}/{path}", file)
                actions.append(_action(path, file, partition, metadata))
    return actions


def add_files(
    table: DeltaTable | None,
    url: str,
    *,
    schema: pa.Schema,
    actions: Sequence[AddAction],
    partition_by: Sequence[str],
    properties: CommitProperties,
    storage_options: Mapping[str, str],
) -> None:
    """Commit data files to a table; where there is no table, the same commit makes it.

    Raises:
        CommitFailedError: deltalake's, where another writer came first (see `commit_once`).
        SampleIndexError: The table has other columns.
    """
    from deltalake import Schema
    from deltalake.exceptions import CommitFailedError, DeltaError
    from deltalake.transaction import create_table_with_add_actions

    columns = Schema.from_arrow(schema)
    if table is not None:
        add_columns(table, columns)
        if table.schema() != columns:
            raise SampleIndexError(f"{url} has other columns", hint="install the biovfm release that wrote it")
        table.create_write_transaction(
            list(actions),
            "append",
            columns,
            list(partition_by),
            commit_properties=properties,
            post_commithook_properties=log_kept(),
        )
        return
    try:
        create_table_with_add_actions(
            url,
            columns,
            list(actions),
            partition_by=list(partition_by),
            storage_options=dict(storage_options),
            configuration=LOG_PROPERTIES,
            commit_properties=properties,
            post_commithook_properties=log_kept(),
        )
    except DeltaError as error:
        if "already exists" not in str(error):
            raise
        raise CommitFailedError(f"{url}: another writer made the table at the same moment") from error


def add_columns(table: DeltaTable, wanted: Schema) -> None:
    """Give a table of an earlier release the columns that came later; its old rows hold null in them."""
    known = {field.name for field in table.schema().fields}
    later = [field for field in wanted.fields if field.name not in known and field.nullable]
    if later and known < {field.name for field in wanted.fields}:
        table.alter.add_columns(later, post_commithook_properties=log_kept())
        table.update_incremental()
        keep_log(table)


def keep_log(table: DeltaTable) -> None:
    """Give a table of an earlier release the properties that keep its log whole (`LOG_PROPERTIES`)."""
    has = table.metadata().configuration
    if any(has.get(name) != value for name, value in LOG_PROPERTIES.items()):
        table.alter.set_table_properties(dict(LOG_PROPERTIES), post_commithook_properties=log_kept())
        table.update_incremental()


def log_kept() -> PostCommitHookProperties:
    """For every commit by deltalake: it may make a checkpoint, and removes nothing of the log."""
    from deltalake import PostCommitHookProperties

    return PostCommitHookProperties(cleanup_expired_logs=False)


def add_actions(table: DeltaTable) -> list[dict[str, Any]]:
    """The table's files: `path` (decoded), `size_bytes`, `num_records`, `partition.…`, `min.…`, `max.…`."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    return [{**row, "path": unquote(row["path"])} for row in rows]


def partition_of(action: Mapping[str, Any]) -> dict[str, str]:
    """The partition of a file, from its entry in `add_actions`."""
    prefix = "partition."
    return {name.removeprefix(prefix): value for name, value in action.items() if name.startswith(prefix)}


def require_inside(table: DeltaTable, url: str) -> None:
    """Check that every file that a table names lies in the table's folder.

    Raises:
        SampleIndexError: The log names a file elsewhere, which a dataset of ours never does.
    """
    import pyarrow as pa

    for path in pa.table(table.get_add_actions(flatten=True))["path"].to_pylist():
        plain = PurePosixPath(unquote(path))
        if plain.is_absolute() or ".." in plain.parts or re.match(r"[A-Za-z][\w+.-]*:", str(plain)):
            raise SampleIndexError(
                f"{url}: its log names a file outside the dataset: {path}",
                hint="do not use this dataset: somebody has changed its log",
            )


def _pieces(rows: pa.RecordBatchReader, partition_by: Sequence[str]) -> Iterator[tuple[Values, pa.RecordBatch]]:
    """The runs of rows of one partition, without the partition columns."""
    import pyarrow as pa

    for batch in rows:
        columns = [batch[name].to_pylist() for name in partition_by]
        keys = zip(*columns, strict=True) if columns else iter([()] * len(batch))
        names = [name for name in batch.schema.names if name not in partition_by]
        schema = pa.schema([batch.schema.field(name) for name in names])
        kept = pa.RecordBatch.from_arrays([batch[name] for name in names], schema=schema)
        start = 0
        for values, run in groupby(keys):
            length = sum(1 for _ in run)
            yield values, kept.slice(start, length)
            start += length


def _write_file(file: Path, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pq.FileMetaData:
    """Write one file; it takes no more of the batches than it holds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    bounded = [field.name for field in schema if not pa.types.is_binary(field.type)]
    repeated = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in DISTINCT_COLUMNS]
    with pa.OSFile(str(file), "wb") as sink:
        writer = pq.ParquetWriter(sink, schema, **_LAYOUT, use_dictionary=repeated, write_statistics=bounded)
        with writer:
            for group in _groups(batches):
                writer.write_table(group)
                pa.default_memory_pool().release_unused()  # it keeps several times a row group otherwise
                if sink.tell() >= FILE_BYTES:
                    break
    return pq.read_metadata(file)


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        waiting.append(batch)
        size += batch.nbytes
        if size >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _name(partition: Mapping[str, str], job_id: str, number: int, file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    return "/".join([*partition_folders(partition), f"part-{_plain(job_id)}-{number:05d}-{digest}.parquet"])


def is_file_of(path: str, job_id: str) -> bool:
    """Whether a table file was written for a job, by its name."""
    return (
        re.fullmatch(rf"part-{re.escape(_plain(job_id))}-\d{{5}}-[0-9a-f]{{16}}\.parquet", PurePosixPath(path).name)
        is not None
    )


def hash_in_name(path: str) -> str:
    """The first 16 hex digits of a table file's SHA-256, from its name; empty where the name has none."""
    found = re.fullmatch(r"part-.*-\d{5}-([0-9a-f]{16})\.parquet", PurePosixPath(path).name)
    return found[1] if found else ""


def partition_folders(partition: Mapping[str, str]) -> list[str]:
    """The folders that the files of a partition lie in."""
    return [f"{name}={_plain(value)}" for name, value in partition.items()]


def _plain(text: str) -> str:
    """`text` without what readers of Delta tables decode in different ways; the log holds the true value."""
    return re.sub(r"[^0-9A-Za-z_-]", "_", text)


def _action(path: str, file: Path, partition: Mapping[str, str], metadata: pq.FileMetaData) -> AddAction:
    from deltalake.transaction import AddAction

    return AddAction(
        path=path,
        size=file.stat().st_size,
        partition_values=partition,
        modification_time=int(time.time() * 1000),
        data_change=True,
        stats=json.dumps(bounds_of(metadata)),
    )


def bounds_of(metadata: pq.FileMetaData) -> Mapping[str, Any]:
    """What a reader needs to skip the file: rows, and the least and greatest value of columns of text and integers.

    Real numbers have none: a NaN lies outside any bounds, and readers do not agree on how it compares.
    """
    least: dict[str, Any] = {}
    greatest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for position in range(metadata.num_columns):
        found = [group.column(position).statistics for group in groups]
        if all(one is not None and one.has_min_max for one in found):
            low, high = min(one.min for one in found), max(one.max for one in found)
            if isinstance(low, int) or (isinstance(low, str) and max(len(low), len(high)) <= _LONGEST_BOUND):
                name = metadata.schema.column(position).name
                least[name], greatest[name] = low, high
                nulls[name] = sum(one.null_count for one in found)
    return {
        "numRecords": metadata.num_rows,
        "minValues": least,
        "maxValues": greatest,
        "nullCount": nulls,
    }
