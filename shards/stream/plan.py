"""What an epoch is made of: the shards of a subset with the number of selected rows in each.

The plan is O(shards); `shards.stream.rows` looks up where the samples lie inside their shards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.dataset.dataset import Dataset
from shards.dataset.query import scan
from shards.dataset.shard_file import shard_tags
from shards.errors import SubsetError
from shards.stream.rows import IndexRows, RowSource
from shards.subset.lock import Lock, Selection, predicate, verify

VERIFIED_SAMPLES = 2_000_000


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

    def places_of(self, shard: str) -> NDArray[np.int64]:
        """`(n, 4)` int64, where the selected samples of a shard lie, in order; see `shards.stream.rows.ShardRows`."""
        (rows,) = self.source.rows([bisect_left(self.shards, shard)])
        return rows.places


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
    """The plan of a lock.

    A lock of up to `VERIFIED_SAMPLES` is verified in full. For a larger one, whose digest takes a sort of minutes, the
    numbers of samples and shards are compared; `biovfm subset verify` does the rest.

    Raises:
        SubsetError: The samples are not the ones that were locked.
    """
    if lock.num_samples <= VERIFIED_SAMPLES:
        verify(lock, dataset)
    plan = _make(dataset, lock.index_version, lock.predicate(), digest=lock.digest)
    if (plan.num_samples, len(plan.shards)) != (lock.num_samples, lock.num_shards):
        raise SubsetError(
            f"{dataset.url} has changed under the lock: {plan.num_samples} samples in {len(plan.shards)} shards, "
            f"locked {lock.num_samples} in {lock.num_shards}",
            hint="restore the dataset, or make a new lock with `biovfm subset create`",
        )
    return plan


def _make(dataset: Dataset, version: int, where: str, *, digest: str) -> Plan:
    table = dataset.samples_table(version)
    with dataset.database("samples", version=version, dictionaries=["shard"]) as database:
        found = database.sql(
            f"SELECT shard, count(*) AS num FROM samples WHERE {where} GROUP BY shard ORDER BY shard::VARCHAR"  # noqa: S608
        ).to_arrow_table()
    if not found.num_rows:
        raise SubsetError(f"no sample of {dataset.url} is selected", hint="`biovfm stats` shows what is there")
    shards = [str(shard) for shard in found["shard"].to_pylist()]
    tags = [shard_tags(shard) for shard in shards]
    keyed = [(shard, source, modality) for shard, (source, modality) in zip(shards, tags, strict=True)]
    return Plan(
        shards=shards,
        sources=[source for source, _ in tags],
        modalities=[modality for _, modality in tags],
        counts=np.asarray(found["num"].to_numpy(), dtype=np.int64),
        digest=digest,
        source=IndexRows(scan(table), where=where, plan=keyed),
    )
