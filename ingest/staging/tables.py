"""The tables of a unit, named as in the dataset; written in small groups so that memory stays flat."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from shards.schema import fingerprint_schema, index_schema, raw_files_schema, rejects_schema

GROUP_ROWS = 512


SCHEMAS = {
    "index": index_schema,
    "rejects": rejects_schema,
    "fingerprints": fingerprint_schema,
    "raw_files": raw_files_schema,
}
"""The tables of a unit and of a dataset."""


def neighbours_schema() -> pa.Schema:
    """The Arrow schema of the staged table `neighbours`: where the file of each sample stands among others."""
    return pa.schema([pa.field(name, pa.int64(), nullable=False) for name in ("folder", "series", "number")])


STAGED_SCHEMAS = {**SCHEMAS, "neighbours": neighbours_schema}
"""The tables of a unit: those of a dataset, and one that is not committed, since it tells of file names."""


class TableSpool:
    """A Parquet file that grows row by row.

    Args:
        path: The file to make.
        schema: Its columns.
        durable: Whether it is on the disk when the `with` block ends.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, durable: bool = True) -> None:
        self.path = path
        self._durable = durable
        self.num_rows = 0
        self._schema = schema
        self._pending: list[Mapping[str, Any]] = []
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if self._durable:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        self._pending.append(row)
        self.num_rows += 1
        if len(self._pending) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
            self._pending = []
