"""What an epoch is made of: the shards of a subset with the selected rows of each.

The plan is O(shards) and one bit per index row; `shards.stream.rows` looks up where the samples lie inside their
shards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.dataset.dataset import Dataset
from shards.dataset.query import scan
from shards.dataset.shard_file import shard_tags
from shards.errors import ConfigError, SubsetError
from shards.stream.digests import Digests
from shards.stream.rows import IndexRows, RowSource
from shards.subset.chosen import Chosen, choose
from shards.subset.finding import VERIFIED_SAMPLES, Found, find
from shards.subset.keys import keys_of
from shards.subset.lock import Lock, is_lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The shards of a subset.

    Attributes:
        shards: Paths below the dataset, sorted.
        sources: Source id of each shard.
        modalities: Modality tag of each shard.
        counts: `(S,)` int64, selected samples of each shard.
        digests: What the samples are, and in which order.
        source: Looks up the rows.
        notes: Lines that the user should see, such as what an old lock does not pin.
        version: Index version; -1 where there is no index.
        chosen: The rows, where they are of an index.
        columns_version: Version of the user's own columns that a lock pins.
    """

    shards: Sequence[str]
    sources: Sequence[str]
    modalities: Sequence[str]
    counts: NDArray[np.int64]
    digests: Digests
    source: RowSource
    notes: tuple[str, ...] = field(default=())
    version: int = -1
    chosen: Chosen | None = None
    columns_version: int | None = None

    @property
    def num_samples(self) -> int:
        """Selected samples."""
        return int(self.counts.sum())

    def places_of(self, shard: str) -> NDArray[np.int64]:
        """`(n, 4)` int64, where the selected samples of a shard lie, in order; see `shards.stream.rows.ShardRows`."""
        (rows,) = self.source.rows([bisect_left(self.shards, shard)])
        return rows.places


def plan_of(url: str | Path, *, dataset: str | None = None, accept_packing: bool = False) -> tuple[Dataset, Plan]:
    """The plan of a dataset (its newest version) or of a lock file.

    Args:
        url: A dataset, or a lock file.
        dataset: Where the lock's dataset lies now; where the lock says, without it.
        accept_packing: Whether the same samples in another order will do.

    Raises:
        SubsetError: The lock does not match its dataset, or nothing is selected.
        ConfigError: `dataset` is given beside a dataset.
    """
    if is_lock(url):
        lock = Lock.read(url)
        found = find(lock, dataset, keys=keys_of(lock, Path(url)))
        return found.dataset, plan_found(found, accept_packing=accept_packing)
    if dataset is not None:
        raise ConfigError(f"{url} is a dataset itself", hint="give --dataset beside a lock file only")
    opened = Dataset.open(str(url))
    return opened, plan_dataset(opened)


def plan_dataset(dataset: Dataset) -> Plan:
    """The plan of all samples of a dataset's newest version.

    Raises:
        SampleIndexError: It holds none.
    """
    version = dataset.version()
    chosen = choose(dataset, version, "TRUE", with_samples=False)
    if chosen.num_samples <= VERIFIED_SAMPLES:
        chosen = choose(dataset, version, "TRUE")
    digests = Digests(
        samples=chosen.digest,
        order=chosen.order_digest(),
        num_samples=chosen.num_samples,
        earlier=f"version:{version}",
    )
    return _make(dataset, version, chosen, digests)


def plan_found(found: Found, *, accept_packing: bool = False) -> Plan:
    """The plan of a lock that was found in a dataset.

    Raises:
        SubsetError: The samples are packed into other shards than they were, and that was not accepted.
    """
    lock = found.lock
    notes = list(found.notes)
    if found.same_order is False:
        if not accept_packing:
            raise SubsetError(
                f"{found.dataset.url} has the locked samples packed into other shards: an epoch comes in another order "
                "than the locked one",
                hint="accept that with --accept-packing, or stream what `biovfm subset materialize` makes of the lock",
            )
        notes.append("the samples are packed into other shards than the locked ones: the order of an epoch differs")
    digests = Digests(
        samples=lock.digest if lock.order else found.chosen.digest,
        order=found.chosen.order_digest(),
        num_samples=found.chosen.num_samples,
        most_lanes=lock.most_lanes,
        earlier="" if lock.order else lock.digest,
    )
    plan = _make(found.dataset, found.version, found.chosen, digests, tuple(notes))
    return replace(plan, columns_version=found.columns_version)


def _make(dataset: Dataset, version: int, chosen: Chosen, digests: Digests, notes: tuple[str, ...] = ()) -> Plan:
    if not chosen.num_samples:
        raise SubsetError(f"no sample of {dataset.url} is selected", hint="`biovfm stats` shows what is there")
    tags = [shard_tags(shard) for shard in chosen.shards]
    return Plan(
        shards=chosen.shards,
        sources=[source for source, _ in tags],
        modalities=[modality for _, modality in tags],
        counts=chosen.counts,
        digests=digests,
        source=IndexRows(scan(dataset.samples_table(version)), chosen, url=dataset.url),
        notes=notes,
        version=version,
        chosen=chosen,
    )
