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
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob
from shards.errors import ShardError, ShortObjectError
from shards.read.block_cache import BLOCK_BYTES, BlockId, Blocks, DiskBlocks, MemoryBlocks
from shards.read.local import FileReader
from shards.read.locations import Location, ShardReader, checked
from shards.store import Store

MEMORY_BUDGET_BYTES = 1 << 30
"""Budget of blocks in memory where the user gives none."""

DISK_BUDGET_BYTES = 64 << 30

LOOKAHEAD_BYTES = 64 << 20
"""What is fetched ahead of the open windows: ten times what a link of 1 Gbit/s and 50 ms holds in flight."""

CONNECTIONS = 16

COALESCE_GAP_BYTES = 64 << 10
"""Two ranges this close are read as one: on shards of mixed tags this costs 1.04 times the bytes."""

PlacesOf = Callable[[str], NDArray[np.int64]]
"""Shard path to `(n, 4)` int64, where its selected samples lie, in order; see `shards.stream.rows.ShardRows`."""


def open_reader(
    store: Store, *, places_of: PlacesOf | None = None, cache: Path | None = None, cache_bytes: int | None = None
) -> ShardReader:
    """The reader for a dataset's shards.

    Args:
        store: The dataset's store.
        places_of: Looks up where the samples of a shard lie; only needed by who prefetches.
        cache: Folder for blocks of remote shards; in memory where None.
        cache_bytes: Budget of the cache.
    """
    if store.local_path("") is not None:
        return FileReader(store)
    if cache is not None:
        blocks: Blocks = DiskBlocks(cache, cache_bytes or DISK_BUDGET_BYTES, origin=store.url)
    else:
        blocks = MemoryBlocks(cache_bytes or MEMORY_BUDGET_BYTES, partial(pieces_of, places_of or _no_places))
    return RemoteReader(store, blocks)


@dataclass(slots=True, kw_only=True)
class _Early:
    """An image that is fetched by itself, ahead of its batch."""

    coming: Future[bytes]
    length: int


@dataclass(slots=True, kw_only=True)
class _Loop:
    """What one loop over the samples has announced.

    Attributes:
        lifetime: After so many more announced samples nobody claims what is left of a block.
        windows_bytes: What its open windows hold.
        windows_fit: Whether that fits into the budget; else every image is a request of its own.
        is_first: Nothing is announced yet.
        announced: Samples announced by this loop and those before it.
        unread: Samples that are announced and not read.
        unread_bytes: Their bytes.
        early: By shard and offset.
    """

    lifetime: int = sys.maxsize
    windows_bytes: int = 0
    windows_fit: bool = True
    is_first: bool = False
    announced: int = 0
    unread: int = 0
    unread_bytes: int = 0
    early: dict[tuple[str, int], _Early] = field(default_factory=dict)

    @property
    def early_bytes(self) -> int:
        """Bytes of the images that are fetched by themselves."""
        return sum(early.length for early in self.early.values())


class RemoteReader:
    """Reads through the store, by blocks or by ranges.

    Args:
        store: The dataset's store.
        blocks: Keeps blocks.
        connections: Requests under way at the same time, for blocks and for single ranges each.
        block_bytes: Bytes of a block.

    Attributes:
        bytes_read: Bytes fetched.
    """

    lookahead_bytes = LOOKAHEAD_BYTES

    def __init__(
        self, store: Store, blocks: Blocks, *, connections: int = CONNECTIONS, block_bytes: int = BLOCK_BYTES
    ) -> None:
        self._store = store
        self._blocks = blocks
        self._block_bytes = block_bytes
        self._ahead = ThreadPoolExecutor(connections, thread_name_prefix="biovfm-ahead")
        self._now = ThreadPoolExecutor(connections, thread_name_prefix="biovfm-now")
        self._lock = threading.Lock()
        self._coming: dict[BlockId, Future[bytes]] = {}
        self._loop = _Loop()
        self._retries_before = store.retries
        self._read_again = 0
        self.bytes_read = 0

    @property
    def ahead(self) -> RemoteReader:
        """This reader: it fetches ahead."""
        return self

    @property
    def retries(self) -> int:
        """Requests that had to be made again: those that failed, and those whose bytes failed their checksum."""
        return self._store.retries - self._retries_before + self._read_again

    @property
    def held_bytes(self) -> int:
        """What lies in memory and has not been read."""
        return self._blocks.memory_bytes

    @property
    def held_limit_bytes(self) -> int:
        """What may be held or under way before nothing more is fetched ahead."""
        return (self._loop.windows_bytes if self._loop.windows_fit else 0) + self.lookahead_bytes

    def reserve(self, windows: int, window_samples: int, locations: Sequence[Location]) -> None:
        """Begin a new loop: forget what an earlier one announced, and set how much may be held.

        Args:
            windows: Open windows, one a lane.
            window_samples: Samples of each.
            locations: A first batch, by which their bytes are estimated.
        """
        block_samples = self._block_bytes * len(locations) // max(sum(location.length for location in locations), 1)
        windows_bytes = self._windows_bytes(windows, window_samples, locations)
        with self._lock:
            for early in self._loop.early.values():
                early.coming.cancel()
            self._loop = _Loop(
                # A block belongs to a window and the next ones that it reaches into; nobody claims the rest of it then.
                lifetime=3 * windows * (window_samples + block_samples),
                windows_bytes=windows_bytes,
                windows_fit=windows_bytes + 2 * self.lookahead_bytes <= self._blocks.budget_bytes,
                is_first=True,
                announced=self._loop.announced,
            )
        if self._blocks.claims is not None:
            self._blocks.claims.forget_claims()

    def _windows_bytes(self, windows: int, window_samples: int, locations: Sequence[Location]) -> int:
        """What open windows hold: half of each on average, and a block where they end."""
        lengths = [location.length for location in locations if location.dense_end]
        if not lengths:
            return 0
        return int(windows * (window_samples * sum(lengths) / len(lengths) / 2 + self._block_bytes))

    def has_room(self) -> bool:
        """Whether more may be fetched ahead than the next `lookahead_bytes` of samples."""
        with self._lock:
            loop = self._loop
            held_bytes = self._blocks.memory_bytes + len(self._coming) * self._block_bytes + loop.early_bytes
        return max(held_bytes, loop.unread_bytes) < self.held_limit_bytes

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Begin to fetch blocks of dense shards and ranges of the others."""
        wanted = list(locations)  # columns become tuples once
        loop = self._loop
        alone = []
        for location in wanted:
            pieces = self._pieces(location)
            if loop.is_first and not self._is_kept(pieces):  # the first batch is there sooner without whole blocks
                pieces = []
            for block, start, _ in pieces:
                self._begin_block(block, start, location.dense_end)
            if not pieces:
                alone.append(location)
        for shard, ranges in _by_shard(alone):
            self._begin_ranges(shard, ranges)
        with self._lock:
            loop.is_first = False
            loop.announced += len(wanted)
            loop.unread += len(wanted)
            loop.unread_bytes += sum(location.length for location in wanted)
        if self._blocks.claims is not None:
            # What is announced stays until it is read, however far ahead of the reader the announcements are.
            self._blocks.claims.forget_unread(now=loop.announced, lifetime=loop.lifetime + loop.unread)

    def _is_kept(self, pieces: Sequence[tuple[BlockId, int, int]]) -> bool:
        """Whether an earlier run has left all of them on disk."""
        return self._blocks.claims is None and all(self._blocks.claim(block, start) for block, start, _ in pieces)

    def read(self, locations: Sequence[Location]) -> list[Blob | ShardError]:
        """The compressed images, in order."""
        wanted = list(locations)
        found: list[bytes | None] = [self._at_hand(location) for location in wanted]
        missing = [number for number, data in enumerate(found) if data is None]
        under_way = [self._now.submit(self._fetch_alone, wanted[number]) for number in missing]
        for number, future in zip(missing, under_way, strict=True):
            found[number] = future.result()
        with self._lock:
            read_bytes = sum(location.length for location in wanted)
            self._loop.unread = max(self._loop.unread - len(wanted), 0)
            self._loop.unread_bytes = max(self._loop.unread_bytes - read_bytes, 0)
        return [self._verified(location, data or b"") for location, data in zip(wanted, found, strict=True)]

    def close(self) -> None:
        """Stop fetching ahead."""
        for pool in (self._ahead, self._now):
            pool.shutdown(wait=True, cancel_futures=True)

    def _pieces(self, location: Location) -> list[tuple[BlockId, int, int]]:
        """The blocks that a sample lies in, with start and length in each; none where it is fetched by itself."""
        if not (location.dense_end and self._loop.windows_fit):
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
            early = self._loop.early
            fresh = [location for location in wanted if (shard, location.offset) not in early]
            if not fresh:
                return
            whole = self._ahead.submit(self._fetch_ranges, shard, fresh)
            for number, location in enumerate(fresh):
                early[shard, location.offset] = _Early(coming=_part(whole, number), length=location.length)

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
            early = self._loop.early.pop((location.shard, location.offset), None)
        if early is not None:
            return _unless_short(early.coming)
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
            if self._blocks.claims is not None:
                self._blocks.claims.unclaim(block, start)

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
    raise AssertionError(f"{shard}: only a reader that can look up places prefetches")


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


def read_coalesced(store: Store, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several `(start, length)` ranges of one object, near ones read in one request.

    Args:
        store: The store.
        path: The object.
        ranges: In any order.

    Returns:
        The bytes of each range, in the order asked.
    """
    merged: list[list[int]] = []
    for start, length in sorted(ranges):
        if merged and start - merged[-1][1] <= COALESCE_GAP_BYTES:
            merged[-1][1] = max(merged[-1][1], start + length)
        else:
            merged.append([start, start + length])
    parts = store.read_ranges(path, [(start, stop - start) for start, stop in merged])
    found = []
    for start, length in ranges:
        number = next(n for n, (first, last) in enumerate(merged) if first <= start and start + length <= last)
        inside = start - merged[number][0]
        found.append(bytes(parts[number][inside : inside + length]))
    return found
