"""Compressed samples out of shards, by the offsets that the index gives, each checked against its CRC-32C."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, overload

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob
from shards.errors import NotFoundError, ShardError, StoreError
from shards.read.bulk import BulkReader, ReadStatus, native_library
from shards.store import Store

COALESCE_GAP_BYTES = 64 << 10
"""Two ranges this close are read as one: on shards of mixed tags this costs 1.04 times the bytes."""


class Location(NamedTuple):
    """Where one compressed image lies; a tuple, since one is made for every sample.

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


class Locations(Sequence[Location]):
    """The locations of a batch, column by column, since thousands of them are looked up each second.

    Args:
        paths: Shard paths.
        shards: `(n,)` int64, number in `paths` of each sample's shard.
        keys: `(n,)` sample keys.
        places: `(n, 4)` int64: offset, length, CRC-32C and dense end of each, see `Location`.
    """

    __slots__ = ("keys", "paths", "places", "shards")

    def __init__(
        self,
        *,
        paths: Sequence[str],
        shards: NDArray[np.int64],
        keys: NDArray[np.object_],
        places: NDArray[np.int64],
    ) -> None:
        self.paths, self.shards, self.keys, self.places = paths, shards, keys, places

    @classmethod
    def of(cls, locations: Sequence[Location]) -> Locations:
        """Locations from single ones."""
        if isinstance(locations, Locations):
            return locations
        paths = list(dict.fromkeys(location.shard for location in locations))
        numbers = {path: number for number, path in enumerate(paths)}
        return cls(
            paths=paths,
            shards=np.array([numbers[location.shard] for location in locations], np.int64),
            keys=np.array([location.key for location in locations], np.object_),
            places=np.array([location[2:] for location in locations], np.int64).reshape(-1, 4),
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Bytes of each."""
        return self.places[:, 1]

    def __len__(self) -> int:
        return len(self.keys)

    def __iter__(self) -> Iterator[Location]:
        columns = zip(self.keys.tolist(), self.shards.tolist(), self.places.tolist(), strict=True)
        return (Location(key, self.paths[shard], *place) for key, shard, place in columns)

    @overload
    def __getitem__(self, index: int) -> Location: ...

    @overload
    def __getitem__(self, index: slice) -> Locations: ...

    def __getitem__(self, index: int | slice) -> Location | Locations:
        if isinstance(index, slice):
            shards, keys, places = self.shards[index], self.keys[index], self.places[index]
            return Locations(paths=self.paths, shards=shards, keys=keys, places=places)
        offset, length, crc32c, dense_end = self.places[index].tolist()
        return Location(self.keys[index], self.paths[self.shards[index]], offset, length, crc32c, dense_end)


class ShardReader(Protocol):
    """Reads samples from the shards of one dataset; safe to use from several threads."""

    bytes_read: int
    lookahead_bytes: int

    @property
    def retries(self) -> int:
        """Requests made again."""
        ...

    def reserve(self, windows: int, window_samples: int, locations: Sequence[Location]) -> None:
        """Begin a loop: make room for so many open windows of so many samples like those of a first batch."""
        ...

    def has_room(self) -> bool:
        """Whether more may be prefetched than the next `lookahead_bytes` of samples."""
        ...

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Begin to fetch what will be read soon."""
        ...

    def read(self, locations: Sequence[Location]) -> list[Blob | ShardError]:
        """The compressed images, in order; a `ShardError` in the place of one that is not what the index says.

        Raises:
            StoreError: The storage failed, or a shard is missing.
        """
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


class FileReader:
    """Reads from shards on a local disk.

    By positioned reads, not memory maps: a read leaves the interpreter to the other threads, costs half of what page
    faults do, and a shard that was cut short is a bad sample instead of the end of the process.

    Args:
        store: The dataset's store; has a file for every shard.
        capacity: Shards to keep open.
    """

    lookahead_bytes = 0
    retries = 0

    def __init__(self, store: Store, *, capacity: int = 256) -> None:
        self._store = store
        self._capacity = capacity
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        library = native_library()
        self._bulk = None if library is None else BulkReader(library)
        self.bytes_read = 0

    def reserve(self, windows: int, window_samples: int, locations: Sequence[Location]) -> None:
        """Nothing: the page cache makes its own room."""

    def has_room(self) -> bool:
        """No: there is nothing to fetch ahead."""
        return False

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Nothing: the page cache reads ahead."""

    def read(self, locations: Sequence[Location]) -> list[Blob | ShardError]:
        """The compressed images, in order; views into a buffer of the reader where the extension is there."""
        columns = Locations.of(locations)
        shards, of_sample = np.unique(columns.shards, return_inverse=True)
        files = self._open([columns.paths[shard] for shard in shards])
        found = (
            self._read_each(columns, files, of_sample)
            if self._bulk is None
            else self._read_bulk(columns, files, of_sample)
        )
        with self._lock:
            self.bytes_read += int(columns.lengths.sum())
        return found

    def _read_each(
        self, locations: Locations, files: Sequence[_OpenFile], of_sample: NDArray[np.intp]
    ) -> list[Blob | ShardError]:
        where = self._store.url
        return [
            checked(location, files[file].read(location.offset, location.length), where=where)
            for location, file in zip(locations, of_sample.tolist(), strict=True)
        ]

    def _read_bulk(
        self, locations: Locations, files: Sequence[_OpenFile], of_sample: NDArray[np.intp]
    ) -> list[Blob | ShardError]:
        assert self._bulk is not None
        descriptors = np.array([file.descriptor for file in files], np.int32)[of_sample]
        views, status = self._bulk.read(descriptors, *locations.places.T[:3])
        found: list[Blob | ShardError] = [*views]
        for number in np.flatnonzero(status).tolist():
            location = locations[number]
            if status[number] == ReadStatus.FAILED:
                files[of_sample[number]].read(location.offset, location.length)  # raises what the system says
            found[number] = _not_as_indexed(location, where=self._store.url)
        return found

    def close(self) -> None:
        """Forget the open shards; they are closed when the last thread that reads them lets go."""
        with self._lock:
            self._files.clear()

    def _open(self, shards: Sequence[str]) -> list[_OpenFile]:
        with self._lock:
            for shard in shards:
                if shard not in self._files:
                    file = self._store.local_path(shard)
                    assert file is not None
                    self._files[shard] = _OpenFile(file)
                self._files.move_to_end(shard)
            found = [self._files[shard] for shard in shards]
            while len(self._files) > self._capacity:
                self._files.popitem(last=False)
            return found


class _OpenFile:
    """A file that closes itself when nobody holds it any more."""

    __slots__ = ("_path", "descriptor")

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            self.descriptor = -1
            raise NotFoundError(f"shard {path} is missing", hint="run `biovfm verify` on the dataset") from error

    def read(self, start: int, length: int) -> bytes:
        """Bytes of the file, fewer where it ends before."""
        try:
            return os.pread(self.descriptor, length, start)
        except OSError as error:
            raise StoreError(f"cannot read {self._path} at {start}: {error.strerror}", hint="check the disk") from error

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def checked(location: Location, data: bytes, *, where: str) -> bytes | ShardError:
    """The data, or the error that it is not what the index says."""
    if len(data) == location.length and google_crc32c.value(data) == location.crc32c:
        return data
    return _not_as_indexed(location, where=where)


def _not_as_indexed(location: Location, *, where: str) -> ShardError:
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
