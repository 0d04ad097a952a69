"""Rows appended to a Delta table in one commit, once for each job, and known to have arrived."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from shards.dataset.replace import JOB, SUMMARY
from shards.dataset.table_files import add_files, write_files
from shards.dataset.table_log import entry_of, is_committed
from shards.schema import PARTITIONS
from shards.store import storage_options
from shards.store.commits import commit_once
from shards.store.driver import DriverError

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake.transaction import AddAction

    from shards.dataset.dataset import Dataset, Rows


def append_rows(dataset: Dataset, name: str, job_id: str, rows: Rows, summary: Mapping[str, Any] | None = None) -> int:
    """Append a job's rows to a table, unless they are in it.

    Args:
        dataset: The dataset.
        name: Folder of the table.
        job_id: What the commit is known by.
        rows: The rows, or what makes them where they are needed.
        summary: Kept in the commit.

    Returns:
        The table's version afterwards.

    Raises:
        SampleIndexError: The log is damaged.
        StoreError: The storage failed, or others commit all the time.
    """
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import CommitFailedError, DeltaError

    options = storage_options(dataset.url)
    partition_by = PARTITIONS if name == "index" else ()
    properties = CommitProperties(
        custom_metadata={JOB: job_id, SUMMARY: json.dumps(dict(summary or {}), sort_keys=True)},
        app_transactions=[Transaction(job_id, 1)],
    )

    @cache
    def files() -> tuple[pa.Schema, list[AddAction]]:
        reader = rows() if callable(rows) else rows.to_reader()
        return reader.schema, write_files(dataset.store, name, job_id, reader, partition_by)

    def write() -> None:
        schema, actions = files()
        table = dataset.table(name)
        if table is not None and dataset.has_transaction(name, table, job_id):
            return  # deltalake compares with what is committed after the version it has loaded
        after = -1 if table is None else int(table.version())
        own = json.dumps(job_id)
        marks = [f'"appId":{own}', f'"{JOB}":{own}', *(action.path for action in actions)]

        def has_arrived() -> bool:
            sent = entry_of(schema, actions, partition_by=partition_by, properties=properties, is_new=table is None)
            return is_committed(dataset.store, name, after=after, sent=sent, marks=marks)

        try:
            add_files(
                table,
                dataset.table_url(name),
                schema=schema,
                actions=actions,
                partition_by=partition_by,
                properties=properties,
                storage_options=options,
            )
        except CommitFailedError:
            raise
        except DeltaError:  # it reads the log again, and cannot where what we sent was damaged on its way
            if not options or not has_arrived():
                raise
        else:
            if options and not has_arrived():
                raise DriverError("transient", f"the storage took a commit to {name}/ and does not have it")

    if not dataset.has_rows_of(name, job_id):
        files()  # out here: an error of the rows is none of the table
        dataset.ask_log(name, lambda: commit_once(write, lambda: dataset.has_rows_of(name, job_id)))
    table = dataset.table(name)
    assert table is not None
    return int(table.version())
