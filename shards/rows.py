"""Where the samples of a shard lie, looked up in the index when the stream comes to the shard, and forgotten again."""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.index import connect

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

DENSE_SHARE = 0.4
"""Reading a shard whole pays off where at least this share of its bytes is wanted."""

_ROW_COLUMNS = ("key", "shard_row", "byte_offset", "byte_length", "crc32c")
OFFSET, LENGTH, CRC32C, DENSE_END = range(4)
"""Columns of `ShardRows.places`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """Where the selected samples of one shard lie, in the order of the shard.

    Attributes:
        keys: `(n,)` strings as objects, so that picking some is one call.
        places: `(n, 4)` int64: first image byte in the tar, bytes, CRC-32C, and the dense end, the same in every row:
            the end of the last image where the selected images fill most of the shard up to it, else 0.
    """

    keys: NDArray[np.object_]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, table: pa.Table) -> ShardRows:
        """The rows of one shard from the index, in any order."""
        table = table.sort_by("shard_row")
        numbers = (table[name].to_numpy() for name in ("byte_offset", "byte_length", "crc32c"))
        places = np.stack([*numbers, np.zeros(len(table), np.int64)], axis=1)
        if len(places):
            end = int(places[-1, OFFSET] + places[-1, LENGTH])
            places[:, DENSE_END] = end if int(places[:, LENGTH].sum()) >= DENSE_SHARE * end else 0
        return cls(keys=table["key"].to_numpy(), places=places)


class RowSource(Protocol):
    """Looks up rows of shards; its in-memory twin makes synthetic plans of any size."""

    def rows(self, shards: Sequence[int]) -> list[ShardRows]:
        """The rows of these shards (numbers of the plan)."""
        ...


class IndexRows:
    """Rows read from the Delta index, the most recently used shards kept.

    A look-up touches the files of the shard's source and modality, and in them only the row groups whose statistics
    admit the shard: a few milliseconds, whatever the size of the index.

    Args:
        samples: The index table.
        where: The SQL predicate of the selection.
        plan: `(shard, source, modality)` of every shard of the plan.
        capacity: Shards to keep.
    """

    def __init__(
        self, samples: ds.Dataset, *, where: str, plan: Sequence[tuple[str, str, str]], capacity: int = 512
    ) -> None:
        self._samples = samples
        self._where = where
        self._plan = plan
        self._capacity = capacity
        self._kept: OrderedDict[int, ShardRows] = OrderedDict()
        self._files: dict[tuple[str, str], list[ds.Fragment]] | None = None
        self._lock = threading.Lock()

    def rows(self, shards: Sequence[int]) -> list[ShardRows]:
        """The rows of these shards, read where they are not at hand."""
        with self._lock:
            for shard in shards:
                if shard not in self._kept:
                    self._kept[shard] = self._read(*self._plan[shard])
                self._kept.move_to_end(shard)
            found = [self._kept[shard] for shard in shards]
            while len(self._kept) > max(self._capacity, len(shards)):
                self._kept.popitem(last=False)
            return found

    def _read(self, shard: str, source: str, modality: str) -> ShardRows:
        import pyarrow as pa
        import pyarrow.dataset as ds

        wanted = ds.field("shard") == shard
        columns = list(_ROW_COLUMNS) if self._where == "TRUE" else None
        parts = []
        for file in self._files_of(source, modality):
            groups = file.subset(wanted, schema=self._samples.schema)
            if groups.row_groups:
                parts.append(groups.to_table(schema=self._samples.schema, filter=wanted, columns=columns))
        table = pa.concat_tables(parts)
        if columns is None:
            with connect() as database:
                database.register("samples", table)
                sql = f"SELECT {', '.join(_ROW_COLUMNS)} FROM samples WHERE {self._where}"  # noqa: S608
                table = database.sql(sql).to_arrow_table()
        return ShardRows.of(table)

    def _files_of(self, source: str, modality: str) -> list[ds.Fragment]:
        import pyarrow.dataset as ds

        if self._files is None:
            self._files = defaultdict(list)
            for file in self._samples.get_fragments():
                keys = ds.get_partition_keys(file.partition_expression)
                self._files[keys["source"], keys["modality"]].append(file)
        return self._files[source, modality]
