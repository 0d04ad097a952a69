"""Where the samples of a shard lie, looked up in the index when the stream comes to the shard, and forgotten again."""

from __future__ import annotations

import functools
import operator
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.dataset.query import ask_tables
from shards.dataset.shard_file import shard_tags
from shards.errors import SampleIndexError
from shards.subset.chosen import Chosen

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

DENSE_SHARE = 0.4
"""Reading a shard whole pays off where at least this share of its bytes is wanted."""

_ROW_COLUMNS = ("shard", "key", "shard_row", "byte_offset", "byte_length", "crc32c")
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
    def split(cls, table: pa.Table, chosen: Chosen, shards: Sequence[int]) -> list[ShardRows]:
        """The selected rows of each of these shards, out of rows of the index in any order.

        Raises:
            SampleIndexError: A shard has fewer rows, or more, than were selected.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        names = [chosen.shards[shard] for shard in shards]
        number = pc.index_in(table["shard"], value_set=pa.array(names, table["shard"].type)).to_numpy()
        positions = table["shard_row"].to_numpy()
        order = np.lexsort((positions, number))
        ends = np.cumsum(np.bincount(number, minlength=len(shards)))
        parts = []
        for shard, rows in zip(shards, np.split(order, ends[:-1]), strict=True):
            kept = rows[chosen.contains(shard, positions[rows].astype(np.int64))]
            if len(kept) != chosen.counts[shard]:
                raise SampleIndexError(
                    f"{chosen.shards[shard]} has {len(kept)} selected rows, {chosen.counts[shard]} were planned",
                    hint="run `biovfm verify` on the dataset",
                )
            parts.append(kept)
        keys = table["key"].to_numpy()
        numbers = [table[name].to_numpy() for name in ("byte_offset", "byte_length", "crc32c")]
        return [
            cls(
                keys=keys[rows],
                places=_with_dense_end(
                    np.stack([*(column[rows] for column in numbers), np.zeros(len(rows), np.int64)], axis=1)
                ),
            )
            for rows in parts
        ]


def _with_dense_end(places: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(places):
        end = int(places[-1, OFFSET] + places[-1, LENGTH])
        places[:, DENSE_END] = end if int(places[:, LENGTH].sum()) >= DENSE_SHARE * end else 0
    return places


class RowSource(Protocol):
    """Looks up rows of shards; its in-memory twin makes synthetic plans of any size."""

    def rows(self, shards: Sequence[int]) -> list[ShardRows]:
        """The rows of these shards (numbers of the plan)."""
        ...


class IndexRows:
    """Rows read from the Delta index, the most recently used shards kept.

    A look-up touches the files of the shards' sources and modalities, and in them only the row groups whose statistics
    admit the shards: a few milliseconds each, whatever the size of the index.

    Args:
        samples: The index table.
        chosen: Which of its rows are in.
        url: The dataset, whose storage the reads wait for.
        capacity: Shards to keep.
    """

    def __init__(self, samples: ds.Dataset, chosen: Chosen, *, url: str, capacity: int = 512) -> None:
        self._url = url
        self._samples = samples
        self._chosen = chosen
        self._capacity = capacity
        self._kept: OrderedDict[int, ShardRows] = OrderedDict()
        self._files: dict[tuple[str, str], list[ds.Fragment]] | None = None
        self._lock = threading.Lock()

    def rows(self, shards: Sequence[int]) -> list[ShardRows]:
        """The rows of these shards, read where they are not at hand.

        Raises:
            StoreError: The storage failed.
            SampleIndexError: The index is damaged, or has other rows than were selected.
        """
        with self._lock:
            missing: dict[tuple[str, str], list[int]] = {}
            for shard in shards:
                if shard in self._kept:
                    self._kept.move_to_end(shard)
                else:
                    missing.setdefault(shard_tags(self._chosen.shards[shard]), []).append(shard)
            for (source, modality), numbers in missing.items():
                self._kept.update(zip(numbers, self._read(numbers, source, modality), strict=True))
            found = [self._kept[shard] for shard in shards]
            while len(self._kept) > max(self._capacity, len(shards)):
                self._kept.popitem(last=False)
            return found

    def _read(self, shards: Sequence[int], source: str, modality: str) -> list[ShardRows]:
        import pyarrow as pa
        import pyarrow.dataset as ds

        names = [self._chosen.shards[shard] for shard in shards]
        each = (ds.field("shard") == name for name in names)
        wanted = functools.reduce(operator.or_, each)  # Arrow weighs this against the statistics, not `isin`
        here = ds.field("shard").isin(names)

        def read() -> list[pa.Table]:
            schema, columns = self._samples.schema, list(_ROW_COLUMNS)
            files = (file.subset(wanted, schema=schema) for file in self._files_of(source, modality))
            return [file.to_table(schema=schema, filter=here, columns=columns) for file in files if file.row_groups]

        return ShardRows.split(pa.concat_tables(ask_tables(self._url, read)), self._chosen, shards)

    def _files_of(self, source: str, modality: str) -> list[ds.Fragment]:
        import pyarrow.dataset as ds

        if self._files is None:
            self._files = defaultdict(list)
            for file in self._samples.get_fragments():
                keys = ds.get_partition_keys(file.partition_expression)
                self._files[keys["source"], keys["modality"]].append(file)
        return self._files[source, modality]
