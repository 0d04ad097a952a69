"""Compressed samples out of shards, by the offsets that the index gives, each checked against its CRC-32C."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import google_crc32c

from shards.errors import NotFoundError, ShardError
from shards.store import Store

COALESCE_GAP_BYTES = 64 << 10
"""Two ranges this close are read as one: on shards of mixed tags this costs 1.04 times the bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where one compressed image lies.

    Attributes:
        key: Sample key.
        shard: Shard path below the dataset.
        offset: First byte in the shard.
        length: Bytes.
        crc32c: CRC-32C of these bytes.
        dense_end: Where most of the shard's bytes are selected, the end of the last selected image; else 0.
    """

    key: str
    shard: str
    offset: int
    length: int
    crc32c: int
    dense_end: int = 0


class ShardReader(Protocol):
    """Reads samples from the shards of one dataset; safe to use from several threads."""

    bytes_read: int
    lookahead_bytes: int

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Begin to fetch what will be read soon."""
        ...

    def read(self, locations: Sequence[Location]) -> list[bytes | ShardError]:
        """The compressed images, in order; a `ShardError` in the place of one that is not what the index says.

        Raises:
            StoreError: The storage failed, or a shard is missing.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class MappedReader:
    """Reads from memory-mapped shards on a local disk.

    Args:
        store: The dataset's store; has a file for every shard.
        capacity: Mapped shards to keep open.
    """

    lookahead_bytes = 0

    def __init__(self, store: Store, *, capacity: int = 256) -> None:
        self._store = store
        self._capacity = capacity
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes_read = 0

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Nothing: the page cache reads ahead."""

    def read(self, locations: Sequence[Location]) -> list[bytes | ShardError]:
        """The compressed images, in order."""
        found: list[bytes | ShardError] = []
        for location in locations:
            view = self._map(location.shard)
            data = view[location.offset : location.offset + location.length]
            found.append(checked(location, data, where=self._store.url))
        with self._lock:
            self.bytes_read += sum(location.length for location in locations)
        return found

    def close(self) -> None:
        """Forget the mapped shards; they are closed when the last reader lets go."""
        with self._lock:
            self._maps.clear()

    def _map(self, shard: str) -> mmap.mmap:
        with self._lock:
            view = self._maps.get(shard)
            if view is None:
                file = self._store.local_path(shard)
                assert file is not None
                view = self._maps[shard] = _open_map(file)
                if len(self._maps) > self._capacity:
                    self._maps.popitem(last=False)  # closed when the last thread that reads it lets go
            else:
                self._maps.move_to_end(shard)
            return view


def checked(location: Location, data: bytes, *, where: str) -> bytes | ShardError:
    """The data, or the error that it is not what the index says."""
    if len(data) == location.length and google_crc32c.value(data) == location.crc32c:
        return data
    return ShardError(
        f"{where}: {location.key} in {location.shard} at offset {location.offset} fails its checksum",
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
