"""Table files without some of their rows, or with other values: only files that hold such rows are written again.

The files of older versions stay where they are; `shards.dataset.replace` makes the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from shards.dataset.replace import Change, replace_files
from shards.dataset.table_files import add_actions, is_file_of, partition_of, write_files

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

    from shards.dataset.dataset import Dataset

    Gone: TypeAlias = Callable[[pa.RecordBatch], pa.Array]
    """The columns that it asked for to which rows go (bool)."""
    Changed: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch]
    """Rows to the same rows with other values."""

_BATCH_ROWS: Final = 2048


def drop_rows(
    dataset: Dataset,
    name: str,
    gone: Gone,
    *,
    columns: Sequence[str],
    transaction: str,
    summary: Mapping[str, Any] | None = None,
    bounds: Mapping[str, tuple[str, str]] | None = None,
    spared: str = "",
    changed: Changed | None = None,
) -> int:
    """Take rows out of a table in one commit, once for each transaction.

    Memory: a table file (from object storage), and some row groups.

    Args:
        dataset: The dataset.
        name: Folder of the table.
        gone: Which rows go.
        columns: The columns that `gone` looks at.
        transaction: What a repeated call is known by.
        summary: Kept in the commit.
        bounds: Column → least and greatest value of rows that may go: files outside are not opened.
        spared: The job whose files keep all their rows.
        changed: What becomes of the rows that stay; asked with `columns` alone it tells whether a file holds such rows.

    Returns:
        Rows that went; 0 where they had gone before.
    """
    thinned = Thinned(dataset, name, gone, columns=columns, transaction=transaction, changed=changed)
    num_gone = 0

    def plan(table: DeltaTable) -> Change | None:
        nonlocal num_gone
        files = [
            action
            for action in add_actions(table)
            if may_hold(action, bounds or {}) and not (spared and is_file_of(action["path"], spared))
        ]
        change, num_gone = thinned.change(table, files)
        return change if change.gone else None

    replace_files(dataset, name, plan, transaction=transaction, summary=summary)
    return num_gone


class Thinned:
    """Files of a table without some of their rows; what is written once is remembered for another try.

    Args:
        dataset: The dataset.
        name: Folder of the table.
        gone: Which rows go.
        columns: The columns that `gone` looks at.
        transaction: Goes into the names of the new files.
        changed: What becomes of the rows that stay.
    """

    def __init__(
        self,
        dataset: Dataset,
        name: str,
        gone: Gone,
        *,
        columns: Sequence[str],
        transaction: str,
        changed: Changed | None = None,
    ) -> None:
        self._dataset = dataset
        self._name = name
        self._gone = gone
        self._columns = columns
        self._transaction = transaction
        self._changed = changed or _same
        self._done: dict[str, tuple[int, Sequence[AddAction] | None]] = {}

    def change(self, table: DeltaTable, files: Sequence[Mapping[str, Any]]) -> tuple[Change, int]:
        """Replace those of some files that hold rows that go.

        Args:
            table: The table.
            files: Their entries in `add_actions`.

        Returns:
            The change, and how many rows go.
        """
        gone: list[str] = []
        added: list[AddAction] = []
        num_gone = 0
        for action in files:
            path = str(action["path"])
            if path not in self._done:
                self._done[path] = self._thin(table, action)
            count, actions = self._done[path]
            num_gone += count
            if actions is not None:
                gone.append(path)
                added += actions
        return Change(gone=gone, added=added), num_gone

    def _thin(self, table: DeltaTable, action: Mapping[str, Any]) -> tuple[int, Sequence[AddAction] | None]:
        """How many rows of a file go, and the files in its place; None where it stays as it is."""
        import pyarrow as pa
        import pyarrow.compute as pc

        count, is_changed = 0, False
        for batch in read_rows(self._dataset, table, self._name, action, self._columns):
            count += pc.sum(self._gone(batch)).as_py() or 0
            is_changed = is_changed or not self._changed(batch).equals(batch)
        if count == action["num_records"]:
            return count, ()
        if not count and not is_changed:
            return count, None

        def stay() -> Iterator[pa.RecordBatch]:
            for batch in read_rows(self._dataset, table, self._name, action):
                yield self._changed(batch.filter(pc.invert(self._gone(batch.select(self._columns)))))

        reader = pa.RecordBatchReader.from_batches(schema_of(table), stay())
        partition_by = list(partition_of(action))
        return count, write_files(self._dataset.store, self._name, self._transaction, reader, partition_by)


def _same(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


def may_hold(action: Mapping[str, Any], bounds: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a file may hold a row within some bounds, by its entry in the log."""
    for column, (low, high) in bounds.items():
        least, greatest = action.get(f"min.{column}"), action.get(f"max.{column}")
        if least is not None and greatest is not None and (greatest < low or least > high):
            return False
    return True


def read_rows(
    dataset: Dataset, table: DeltaTable, name: str, action: Mapping[str, Any], columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of one file with the table's columns and types: its partition, and null in columns that came later.

    Args:
        dataset: The dataset.
        table: The table.
        name: Its folder.
        action: The file's entry in `add_actions`.
        columns: Only these columns.
    """
    import pyarrow as pa

    schema = schema_of(table)
    schema = schema if columns is None else pa.schema([schema.field(column) for column in columns])
    partition = partition_of(action)
    with _opened(dataset, f"{name}/{action['path']}") as file:
        there = [column for column in schema.names if column in set(file.schema_arrow.names)]
        for batch in file.iter_batches(_BATCH_ROWS, columns=there, use_threads=False):
            arrays = [
                pa.array([partition[field.name]] * len(batch), field.type)
                if field.name in partition
                else batch[field.name].cast(field.type)
                if field.name in there
                else pa.nulls(len(batch), field.type)
                for field in schema
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def schema_of(table: DeltaTable) -> pa.Schema:
    """The columns of a table, as files of ours hold them."""
    import pyarrow as pa

    return pa.schema(table.schema())


@contextmanager
def _opened(dataset: Dataset, path: str) -> Iterator[pq.ParquetFile]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    local = dataset.store.local_path(path)
    there = local is not None and local.exists()  # else the store tells what is wrong
    source = pa.OSFile(str(local)) if there else pa.BufferReader(dataset.store.read(path))
    with source, pq.ParquetFile(source, pre_buffer=False) as file:
        yield file
    pa.default_memory_pool().release_unused()
