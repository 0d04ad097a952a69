"""Compressed samples out of shards, by the offsets that the index gives, each checked against its CRC-32C."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from shards.errors import NotFoundError, ShardError
from shards.store import Store

COALESCE_GAP_BYTES = 64 << 10
"""Two ranges this close are read as one: on shards of mixed tags this costs 1.04 times the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where one compressed image lies: key, shard path, first byte, bytes and their CRC-32C."""

    key: str
    shard: str
    offset: int
    length: int
    crc32c: int


class ShardReader:
    """Reads samples from the shards of one dataset; safe to use from several threads.

    Shards on a local disk are memory-mapped, others are read by ranges through the store.

    Args:
        store: The dataset's store.
        capacity: Mapped shards to keep open.
    """

    def __init__(self, store: Store, *, capacity: int = 256) -> None:
        self._store = store
        self._capacity = capacity
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes_read = 0

    def read(self, locations: Sequence[Location]) -> list[bytes | ShardError]:
        """The compressed images, in order; a `ShardError` in the place of one that is not what the index says.

        Raises:
            StoreError: The storage failed, or a shard is missing.
        """
        by_shard: dict[str, list[int]] = {}
        for number, location in enumerate(locations):
            by_shard.setdefault(location.shard, []).append(number)
        found: list[bytes | ShardError] = [b""] * len(locations)
        for shard, numbers in by_shard.items():
            wanted = [locations[number] for number in numbers]
            for number, location, data in zip(numbers, wanted, self._read_shard(shard, wanted), strict=True):
                found[number] = self._checked(location, data)
        with self._lock:
            self.bytes_read += sum(location.length for location in locations)
        return found

    def close(self) -> None:
        """Forget the mapped shards; they are closed when the last reader lets go."""
        with self._lock:
            self._maps.clear()

    def _read_shard(self, shard: str, wanted: Sequence[Location]) -> list[bytes]:
        file = self._store.local_path(shard)
        if file is None:
            return read_coalesced(self._store, shard, [(location.offset, location.length) for location in wanted])
        view = self._map(shard, file)
        return [view[location.offset : location.offset + location.length] for location in wanted]

    def _map(self, shard: str, file: Path) -> mmap.mmap:
        with self._lock:
            view = self._maps.get(shard)
            if view is None:
                view = self._maps[shard] = _open_map(file)
                if len(self._maps) > self._capacity:
                    self._maps.popitem(last=False)  # closed when the last thread that reads it lets go
            else:
                self._maps.move_to_end(shard)
            return view

    def _checked(self, location: Location, data: bytes) -> bytes | ShardError:
        if len(data) == location.length and google_crc32c.value(data) == location.crc32c:
            return data
        return ShardError(
            f"{self._store.url}: {location.key} in {location.shard} at offset {location.offset} fails its checksum",
            hint="run `biovfm verify --deep` on the dataset",
        )


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


def _open_map(file: Path) -> mmap.mmap:
    try:
        with file.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (FileNotFoundError, ValueError) as error:
        raise NotFoundError(f"shard {file} is missing or empty", hint="run `biovfm verify` on the dataset") from error
