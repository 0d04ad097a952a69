"""Samples out of shards on object storage.

A shard of which most bytes are wanted is read in blocks of 2 MiB, each once, for all the samples that lie in it; from
the others only the wanted ranges are read, near ones in one request. Both are begun some way ahead of the batch that
needs them. What is needed before its block's turn has come is read by itself, so the first batch does not wait for the
blocks of all lanes. A sample that fails its checksum is read once more, past the cache, before it is called bad.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from shards.blocks import BLOCK_BYTES, BlockId, Blocks, DiskBlocks, MemoryBlocks
from shards.decode.base import Blob
from shards.errors import ShardError
from shards.reading import FileReader, Location, ShardReader, checked, read_coalesced
from shards.store import Store

MEMORY_BUDGET_BYTES = 256 << 20
"""Budget of a cache in memory before the stream has said what its open windows need."""

DISK_BUDGET_BYTES = 64 << 30
LOOKAHEAD_BYTES = 128 << 20
CONNECTIONS = 16


def open_reader(store: Store, *, cache: Path | None = None, cache_bytes: int | None = None) -> ShardReader:
    """The reader for a dataset's shards.

    Args:
        store: The dataset's store.
        cache: Folder for blocks of remote shards; in memory where None.
        cache_bytes: Budget of the cache.
    """
    if store.local_path("") is not None:
        return FileReader(store)
    if cache is not None:
        return RemoteReader(store, DiskBlocks(cache, cache_bytes or DISK_BUDGET_BYTES, origin=store.url))
    return RemoteReader(store, MemoryBlocks(cache_bytes or MEMORY_BUDGET_BYTES), fixed_budget=cache_bytes is not None)


class RemoteReader:
    """Reads through the store, by blocks or by ranges.

    Args:
        store: The dataset's store.
        blocks: Keeps blocks.
        connections: Requests under way at the same time, for blocks and for single ranges each.
        block_bytes: Bytes of a block.
        fixed_budget: The blocks' budget is the user's; `reserve` does not raise it.
    """

    lookahead_bytes = LOOKAHEAD_BYTES

    def __init__(
        self,
        store: Store,
        blocks: Blocks,
        *,
        connections: int = CONNECTIONS,
        block_bytes: int = BLOCK_BYTES,
        fixed_budget: bool = False,
    ) -> None:
        self._store = store
        self._fixed_budget = fixed_budget
        self._blocks = blocks
        self._block_bytes = block_bytes
        self._ahead = ThreadPoolExecutor(connections, thread_name_prefix="biovfm-ahead")
        self._now = ThreadPoolExecutor(connections, thread_name_prefix="biovfm-now")
        self._lock = threading.Lock()
        self._coming: dict[BlockId, Future[bytes]] = {}
        self._early: dict[tuple[str, int], Future[bytes]] = {}
        self.bytes_read = 0

    def reserve(self, windows: int, window_bytes: int) -> None:
        """Make room for the open windows, the blocks at their ends, and what is fetched ahead.

        With less, blocks would be let go before all their samples were used, and fetched again.
        """
        needed = windows * (window_bytes + 2 * self._block_bytes) + 2 * self.lookahead_bytes
        if not self._fixed_budget:
            self._blocks.budget_bytes = max(self._blocks.budget_bytes, needed)

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Begin to fetch blocks of dense shards and ranges of the others."""
        for location in locations:
            for block in self._blocks_of(location):
                self._begin_block(block, location.dense_end)
        for shard, wanted in _by_shard(location for location in locations if not location.dense_end):
            self._begin_ranges(shard, wanted)

    def read(self, locations: Sequence[Location]) -> list[Blob | ShardError]:
        """The compressed images, in order."""
        found: dict[int, bytes] = {}
        for number, location in enumerate(locations):
            data = self._at_hand(location)
            if data is not None:
                found[number] = data
        missing = [number for number in range(len(locations)) if number not in found]
        found |= dict(zip(missing, self._read_now([locations[number] for number in missing]), strict=True))
        return [self._verified(location, found[number]) for number, location in enumerate(locations)]

    def close(self) -> None:
        """Stop fetching ahead."""
        for pool in (self._ahead, self._now):
            pool.shutdown(wait=True, cancel_futures=True)

    def _blocks_of(self, location: Location) -> list[BlockId]:
        if not location.dense_end:
            return []
        first, last = location.offset // self._block_bytes, (location.offset + location.length - 1) // self._block_bytes
        return [(location.shard, number) for number in range(first, last + 1)]

    def _begin_block(self, block: BlockId, end: int) -> None:
        with self._lock:
            if block in self._coming or self._blocks.has(block):
                return
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
        if early is not None:
            return early.result()
        parts = [self._from_block(location, block) for block in self._blocks_of(location)]
        return b"".join(part for part in parts if part is not None) if parts and None not in parts else None

    def _from_block(self, location: Location, block: BlockId) -> bytes | None:
        start = max(location.offset - block[1] * self._block_bytes, 0)
        stop = min(location.offset + location.length - block[1] * self._block_bytes, self._block_bytes)
        with self._lock:
            coming = self._coming.get(block)
        if coming is None:
            return self._blocks.read(block, start, stop - start)
        if not (coming.running() or coming.done()):
            return None
        return coming.result()[start:stop]

    def _read_now(self, wanted: Sequence[Location]) -> list[bytes]:
        under_way = [self._now.submit(self._fetch, item.shard, item.offset, item.length) for item in wanted]
        return [future.result() for future in under_way]

    def _verified(self, location: Location, data: bytes) -> bytes | ShardError:
        first = checked(location, data, where=self._store.url)
        if isinstance(first, bytes):
            return first
        for block in self._blocks_of(location):
            self._blocks.drop(block)
        return checked(location, self._fetch(location.shard, location.offset, location.length), where=self._store.url)


def _by_shard(locations: Iterable[Location]) -> list[tuple[str, list[Location]]]:
    groups: dict[str, list[Location]] = {}
    for location in locations:
        groups.setdefault(location.shard, []).append(location)
    return list(groups.items())


def _part(whole: Future[list[bytes]], number: int) -> Future[bytes]:
    part: Future[bytes] = Future()

    def settle(done: Future[list[bytes]]) -> None:
        if done.cancelled():
            part.cancel()
        elif (error := done.exception()) is not None:
            part.set_exception(error)
        else:
            part.set_result(done.result()[number])

    whole.add_done_callback(settle)
    return part
