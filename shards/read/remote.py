"""Samples out of shards on object storage.

A shard of which most bytes are wanted is read in blocks of 1 MiB, each once, for all the samples that lie in it; from
the others only the wanted ranges are read, near ones in one request. Both are begun ahead of the batch that needs them,
in the order of need. A sample is let go when it has been read.

How far ahead, and so how much memory: what is held or under way stays below `held_limit_bytes`, which is what the open
windows of the rank's lanes hold on average, the blocks at their ends, and `LOOKAHEAD_BYTES`. Where windows of large
images do not fit into the budget, every image is a request of its own and only the lookahead is held.

The first batch of a loop is fetched sample by sample, since it touches most of the blocks of all lanes and would wait
for them. A sample that fails its checksum is read once more, past the cache, before it is called bad.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob
from shards.errors import ShardError, ShortObjectError
from shards.read.block_cache import BLOCK_BYTES, BlockId, Blocks, DiskBlocks, MemoryBlocks
from shards.read.local import FileReader, Location, ShardReader, checked, read_coalesced
from shards.store import Store

if TYPE_CHECKING:
    from shards.stream.plan import Plan

MEMORY_BUDGET_BYTES = 1 << 30
"""Budget of blocks in memory where the user gives none."""

DISK_BUDGET_BYTES = 64 << 30

LOOKAHEAD_BYTES = 64 << 20
"""What is fetched ahead of the open windows: ten times what a link of 1 Gbit/s and 50 ms holds in flight."""

CONNECTIONS = 16

PlacesOf = Callable[[str], NDArray[np.int64]]
"""Shard path to `(n, 4)` int64, where its selected samples lie, in order; see `shards.stream.rows.ShardRows`."""


def open_reader(
    store: Store, *, plan: Plan | None = None, cache: Path | None = None, cache_bytes: int | None = None
) -> ShardReader:
    """The reader for a dataset's shards.

    Args:
        store: The dataset's store.
        plan: What will be prefetched; only needed for that.
        cache: Folder for blocks of remote shards; in memory where None.
        cache_bytes: Budget of the cache.
    """
    if store.local_path("") is not None:
        return FileReader(store)
    places_of = _no_places if plan is None else partial(_places_of, plan)
    if cache is not None:
        blocks: Blocks = DiskBlocks(cache, cache_bytes or DISK_BUDGET_BYTES, origin=store.url)
    else:
        blocks = MemoryBlocks(cache_bytes or MEMORY_BUDGET_BYTES, partial(pieces_of, places_of))
    return RemoteReader(store, blocks, places_of=places_of)


class RemoteReader:
    """Reads through the store, by blocks or by ranges.

    Args:
        store: The dataset's store.
        blocks: Keeps blocks.
        connections: Requests under way at the same time, for blocks and for single ranges each.
        block_bytes: Bytes of a block.
        places_of: Where a shard's samples lie.

    Attributes:
        bytes_read: Bytes fetched.
        held_limit_bytes: What may be held or under way before nothing more is fetched ahead.
    """

    lookahead_bytes = LOOKAHEAD_BYTES

    def __init__(
        self,
        store: Store,
        blocks: Blocks,
        *,
        connections: int = CONNECTIONS,
        block_bytes: int = BLOCK_BYTES,
        places_of: PlacesOf,
    ) -> None:
        self._store = store
        self._blocks = blocks
        self._block_bytes = block_bytes
        self._places_of = places_of
        self._ahead = ThreadPoolExecutor(connections, thread_name_prefix="biovfm-ahead")
        self._now = ThreadPoolExecutor(connections, thread_name_prefix="biovfm-now")
        self._lock = threading.Lock()
        self._coming: dict[BlockId, Future[bytes]] = {}
        self._early: dict[tuple[str, int], Future[bytes]] = {}
        self._early_bytes = 0
        self._announced = 0
        self._unread_bytes = 0
        self._lifetime = sys.maxsize
        self._windows_fit = True
        self._is_first = False
        self._retries_before = _retries_of(store)
        self._read_again = 0
        self.bytes_read = 0
        self.held_limit_bytes = self.lookahead_bytes

    @property
    def retries(self) -> int:
        """Requests that had to be made again: those that failed, and those whose bytes failed their checksum."""
        return _retries_of(self._store) - self._retries_before + self._read_again

    def reserve(self, windows: int, window_samples: int, locations: Sequence[Location]) -> None:
        """Begin a new loop: forget what an earlier one announced, and set how much may be held.

        Args:
            windows: Open windows, one a lane.
            window_samples: Samples of each.
            locations: A first batch, by which their bytes are estimated.
        """
        with self._lock:
            for early in self._early.values():
                early.cancel()
            self._early.clear()
            self._early_bytes = self._unread_bytes = 0
        self._blocks.forget_claims()
        block_samples = self._block_bytes * len(locations) // max(sum(location.length for location in locations), 1)
        # A block belongs to a window and the next ones that it reaches into; what is left of it then nobody reads.
        self._lifetime = 3 * windows * (window_samples + block_samples)
        self._is_first = True
        needed = self._windows_bytes(windows, window_samples, locations)
        self._windows_fit = needed + 2 * self.lookahead_bytes <= self._blocks.budget_bytes
        self.held_limit_bytes = (needed if self._windows_fit else 0) + self.lookahead_bytes

    def _windows_bytes(self, windows: int, window_samples: int, locations: Sequence[Location]) -> int:
        """What open windows hold: half of each on average, and a block where they end."""
        lengths = [location.length for location in locations if location.dense_end]
        if not lengths:
            return 0
        return int(windows * (window_samples * sum(lengths) / len(lengths) / 2 + self._block_bytes))

    def has_room(self) -> bool:
        """Whether more may be fetched ahead than the next `lookahead_bytes` of samples."""
        held_bytes = self._blocks.memory_bytes + len(self._coming) * self._block_bytes + self._early_bytes
        return max(held_bytes, self._unread_bytes) < self.held_limit_bytes

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Begin to fetch blocks of dense shards and ranges of the others."""
        wanted = list(locations)  # columns become tuples once
        alone = []
        for location in wanted:
            pieces = [] if self._is_first else self._pieces(location)
            for block, start, _ in pieces:
                self._begin_block(block, start, location.dense_end)
            if not pieces:
                alone.append(location)
        for shard, ranges in _by_shard(alone):
            self._begin_ranges(shard, ranges)
        self._is_first = False
        with self._lock:
            self._announced += len(wanted)
            self._unread_bytes += sum(location.length for location in wanted)
        self._blocks.forget_unread(now=self._announced, lifetime=self._lifetime)

    def read(self, locations: Sequence[Location]) -> list[Blob | ShardError]:
        """The compressed images, in order."""
        wanted = list(locations)
        found: list[bytes | None] = [self._at_hand(location) for location in wanted]
        missing = [number for number, data in enumerate(found) if data is None]
        under_way = [self._now.submit(self._fetch_alone, wanted[number]) for number in missing]
        for number, future in zip(missing, under_way, strict=True):
            found[number] = future.result()
        with self._lock:
            self._unread_bytes = max(self._unread_bytes - sum(location.length for location in wanted), 0)
        return [self._verified(location, data or b"") for location, data in zip(wanted, found, strict=True)]

    def close(self) -> None:
        """Stop fetching ahead."""
        for pool in (self._ahead, self._now):
            pool.shutdown(wait=True, cancel_futures=True)

    def _pieces(self, location: Location) -> list[tuple[BlockId, int, int]]:
        """The blocks that a sample lies in, with start and length in each; none where it is fetched by itself."""
        if not (location.dense_end and self._windows_fit):
            return []
        found, offset, end = [], location.offset, location.offset + location.length
        while offset < end:
            number, start = divmod(offset, self._block_bytes)
            length = min(end - offset, self._block_bytes - start)
            found.append(((location.shard, number), start, length))
            offset += length
        return found

    def _begin_block(self, block: BlockId, start: int, end: int) -> None:
        with self._lock:
            if not self._blocks.claim(block, start) and block not in self._coming:
                self._coming[block] = self._ahead.submit(self._fetch_block, block, end)

    def _fetch_block(self, block: BlockId, end: int) -> bytes:
        shard, number = block
        start = number * self._block_bytes
        try:
            data = self._fetch(shard, start, min(self._block_bytes, end - start))
            self._blocks.put(block, data)
        finally:
            with self._lock:
                self._coming.pop(block, None)
        return data

    def _begin_ranges(self, shard: str, wanted: Sequence[Location]) -> None:
        with self._lock:
            fresh = [location for location in wanted if (shard, location.offset) not in self._early]
            if not fresh:
                return
            whole = self._ahead.submit(self._fetch_ranges, shard, fresh)
            for number, location in enumerate(fresh):
                self._early[shard, location.offset] = _part(whole, number)
                self._early_bytes += location.length

    def _fetch_ranges(self, shard: str, wanted: Sequence[Location]) -> list[bytes]:
        parts = read_coalesced(self._store, shard, [(location.offset, location.length) for location in wanted])
        with self._lock:
            self.bytes_read += sum(map(len, parts))
        return parts

    def _fetch(self, shard: str, start: int, length: int) -> bytes:
        data = self._store.read_range(shard, start, length)
        with self._lock:
            self.bytes_read += len(data)
        return data

    def _at_hand(self, location: Location) -> bytes | None:
        with self._lock:
            early = self._early.pop((location.shard, location.offset), None)
            self._early_bytes -= location.length if early is not None else 0
        if early is not None:
            return _unless_short(early)
        parts = [self._from_block(*piece) for piece in self._pieces(location)]
        return b"".join(part for part in parts if part is not None) if parts and None not in parts else None

    def _from_block(self, block: BlockId, start: int, length: int) -> bytes | None:
        try:
            data = self._blocks.take(block, start, length)
            if data is not None:
                return data
            with self._lock:
                coming = self._coming.get(block)
            whole = None if coming is None else _unless_short(coming)
            data = self._blocks.take(block, start, length)  # it has come by now, also where it came in between
            return data if data is not None or whole is None else whole[start : start + length]
        finally:
            self._blocks.unclaim(block, start)

    def _fetch_alone(self, location: Location) -> bytes:
        """One image; empty where its shard ends before it, so that it fails its checksum."""
        try:
            return self._fetch(location.shard, location.offset, location.length)
        except ShortObjectError:
            return b""

    def _verified(self, location: Location, data: bytes) -> bytes | ShardError:
        first = checked(location, data, where=self._store.url)
        if isinstance(first, bytes):
            return first
        for block, _, _ in self._pieces(location):
            self._blocks.drop(block)
        with self._lock:
            self._read_again += 1
        return checked(location, self._fetch_alone(location), where=self._store.url)


def _unless_short(coming: Future[bytes]) -> bytes | None:
    """What was fetched; None where the object ended before all of it, so that each image is tried alone."""
    try:
        return coming.result()
    except ShortObjectError:
        return None


def pieces_of(places_of: PlacesOf, block: BlockId, block_bytes: int = BLOCK_BYTES) -> list[tuple[int, int]]:
    """Start and length, inside a block, of what it holds of each selected sample."""
    places = places_of(block[0])
    starts = places[:, 0] - block[1] * block_bytes
    ends = starts + places[:, 1]
    inside = (ends > 0) & (starts < block_bytes)
    starts, ends = starts[inside].clip(0), ends[inside].clip(max=block_bytes)
    return list(zip(starts.tolist(), (ends - starts).tolist(), strict=True))


def _no_places(shard: str) -> NDArray[np.int64]:
    raise AssertionError(f"{shard}: only a reader with a plan prefetches")


def _places_of(plan: Plan, shard: str) -> NDArray[np.int64]:
    (rows,) = plan.source.rows([bisect_left(plan.shards, shard)])
    return rows.places


def _retries_of(store: Store) -> int:
    return int(getattr(store, "retries", 0))


def _by_shard(locations: Iterable[Location]) -> list[tuple[str, list[Location]]]:
    groups: dict[str, list[Location]] = {}
    for location in locations:
        groups.setdefault(location.shard, []).append(location)
    return list(groups.items())


def _part(whole: Future[list[bytes]], number: int) -> Future[bytes]:
    part: Future[bytes] = Future()

    def settle(done: Future[list[bytes]]) -> None:
        if not part.set_running_or_notify_cancel():
            return
        if done.cancelled():
            part.set_exception(CancelledError())
        elif (error := done.exception()) is not None:
            part.set_exception(error)
        else:
            part.set_result(done.result()[number])

    whole.add_done_callback(settle)
    return part
