"""What an epoch is made of: the shards of a subset with the number of selected rows in each.

The plan is O(shards). Where the samples lie inside their shards is looked up shard by shard when the stream comes to
them, and forgotten again.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.dataset import Dataset
from shards.errors import SampleIndexError, SubsetError
from shards.index import connect, scan
from shards.subset import Lock, Selection, predicate, verify

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

DENSE_SHARE = 0.4
"""Reading a shard whole pays off where at least this share of its bytes is wanted."""

_ROW_COLUMNS = ("key", "shard", "shard_row", "byte_offset", "byte_length", "crc32c", "extension")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """Where the selected samples of one shard lie, in the order of the shard.

    Attributes:
        key: `(n,)` Arrow strings.
        byte_offset: `(n,)` int64, first image byte in the tar.
        byte_length: `(n,)` int64.
        crc32c: `(n,)` int64.
    """

    key: pa.Array
    byte_offset: NDArray[np.int64]
    byte_length: NDArray[np.int64]
    crc32c: NDArray[np.int64]

    @property
    def dense_end(self) -> int:
        """The end of the last image where the selected images fill most of the shard up to it, else 0."""
        if not len(self.byte_offset):
            return 0
        end = int(self.byte_offset[-1] + self.byte_length[-1])
        return end if int(self.byte_length.sum()) >= DENSE_SHARE * end else 0


class RowSource(Protocol):
    """Looks up rows of shards; its in-memory twin makes synthetic plans of any size."""

    def rows(self, shards: Sequence[int]) -> list[ShardRows]:
        """The rows of these shards (numbers of the plan)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The shards of a subset.

    Attributes:
        shards: Paths below the dataset, sorted.
        sources: Source id of each shard.
        modalities: Modality tag of each shard.
        counts: `(S,)` int64, selected samples of each shard.
        digest: What the samples are: the lock's digest, or the dataset's index version.
        source: Looks up the rows.
    """

    shards: Sequence[str]
    sources: Sequence[str]
    modalities: Sequence[str]
    counts: NDArray[np.int64]
    digest: str
    source: RowSource

    @property
    def num_samples(self) -> int:
        """Selected samples."""
        return int(self.counts.sum())


class IndexRows:
    """Rows read from the Delta index, the most recently used shards kept.

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
        self._lock = threading.Lock()

    def rows(self, shards: Sequence[int]) -> list[ShardRows]:
        """The rows of these shards, read in one query where they are not at hand."""
        with self._lock:
            missing = sorted({shard for shard in shards if shard not in self._kept})
            if missing:
                self._kept.update(self._read(missing))
            for shard in shards:
                self._kept.move_to_end(shard)
            found = [self._kept[shard] for shard in shards]
            while len(self._kept) > max(self._capacity, len(shards)):
                self._kept.popitem(last=False)
            return found

    def _read(self, shards: Sequence[int]) -> dict[int, ShardRows]:
        import pyarrow.dataset as ds

        wanted = [self._plan[shard] for shard in shards]
        names, sources, modalities = (sorted(set(column)) for column in zip(*wanted, strict=True))
        table = self._samples.to_table(
            filter=ds.field("source").isin(sources)
            & ds.field("modality").isin(modalities)
            & ds.field("shard").isin(names)
        )
        with connect() as database:
            database.register("samples", table)
            columns = ", ".join(_ROW_COLUMNS)
            rows = database.sql(
                f"SELECT {columns} FROM samples WHERE {self._where} ORDER BY shard, shard_row"  # noqa: S608
            ).to_arrow_table()
        return dict(zip(shards, _split(rows, [shard for shard, *_ in wanted]), strict=True))


def _split(rows: pa.Table, shards: Sequence[str]) -> list[ShardRows]:
    rows = rows.combine_chunks()
    names = np.asarray(rows["shard"].to_pylist(), dtype=object)
    found = []
    for shard in shards:
        start, stop = np.searchsorted(names, [shard, shard + "\0"]) if len(names) else (0, 0)
        part = rows.slice(int(start), int(stop - start))
        numbers = {name: _int64(part[name]) for name in ("byte_offset", "byte_length", "crc32c")}
        found.append(ShardRows(key=part["key"].combine_chunks(), **numbers))
    return found


def _int64(column: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(column.to_numpy(), dtype=np.int64)


def plan_of(url: str) -> tuple[Dataset, Plan]:
    """The plan of a dataset (its newest version) or of a lock file.

    Raises:
        SubsetError: The lock does not match its dataset, or nothing is selected.
    """
    if url.endswith((".yaml", ".yml")):
        lock = Lock.read(Path(url))
        dataset = Dataset.open(lock.dataset)
        return dataset, plan_lock(lock, dataset)
    dataset = Dataset.open(url)
    version = dataset.version()
    plan = _make(dataset, version, predicate(Selection(), {}), digest=f"version:{version}")
    return dataset, plan


def plan_lock(lock: Lock, dataset: Dataset) -> Plan:
    """The plan of a lock, after verifying it."""
    verify(lock, dataset)
    return _make(dataset, lock.index_version, lock.predicate(), digest=lock.digest)


def _make(dataset: Dataset, version: int, where: str, *, digest: str) -> Plan:
    table = dataset.table("index", version=version) if version >= 0 else None
    if table is None:
        raise SampleIndexError(f"{dataset.url} holds no samples yet", hint="run `biovfm ingest` first")
    samples = scan(table)
    with connect() as database:
        database.register("samples", samples)
        shards = database.sql(
            "SELECT shard, any_value(source) AS source, any_value(modality) AS modality, count(*) AS num "  # noqa: S608
            f"FROM samples WHERE {where} GROUP BY shard ORDER BY shard"
        ).to_arrow_table()
    if not shards.num_rows:
        raise SubsetError(f"no sample of {dataset.url} is selected", hint="`biovfm stats` shows what is there")
    columns: dict[str, Any] = {name: shards[name].to_pylist() for name in ("shard", "source", "modality")}
    keyed = list(zip(columns["shard"], columns["source"], columns["modality"], strict=True))
    return Plan(
        shards=columns["shard"],
        sources=columns["source"],
        modalities=columns["modality"],
        counts=_int64(shards["num"]),
        digest=digest,
        source=IndexRows(samples, where=where, plan=keyed),
    )
