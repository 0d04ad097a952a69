"""Where compressed samples lie in their shards, and what reads them from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, overload

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob
from shards.errors import ShardError


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
        rows: `(n,)` int64, which of its shard's selected rows each is; empty where nobody asks.
    """

    __slots__ = ("keys", "paths", "places", "rows", "shards")

    def __init__(
        self,
        *,
        paths: Sequence[str],
        shards: NDArray[np.int64],
        keys: NDArray[np.object_],
        places: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.paths, self.shards, self.keys, self.places = paths, shards, keys, places
        self.rows = np.zeros(0, np.int64) if rows is None else rows

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
            return Locations(paths=self.paths, shards=shards, keys=keys, places=places, rows=self.rows[index])
        offset, length, crc32c, dense_end = self.places[index].tolist()
        return Location(self.keys[index], self.paths[self.shards[index]], offset, length, crc32c, dense_end)


class Ahead(Protocol):
    """Fetches samples before they are read; safe to use from several threads."""

    lookahead_bytes: int

    def reserve(self, windows: int, window_samples: int, locations: Sequence[Location]) -> None:
        """Begin a loop: make room for so many open windows of so many samples like those of a first batch."""
        ...

    def has_room(self) -> bool:
        """Whether more may be prefetched than the next `lookahead_bytes` of samples."""
        ...

    def prefetch(self, locations: Sequence[Location]) -> None:
        """Begin to fetch what will be read soon."""
        ...


class ShardReader(Protocol):
    """Reads samples from the shards of one dataset; safe to use from several threads."""

    bytes_read: int

    @property
    def ahead(self) -> Ahead | None:
        """Fetches ahead; None where the system's page cache does that."""
        ...

    @property
    def retries(self) -> int:
        """Requests made again."""
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


def checked(location: Location, data: bytes, *, where: str) -> bytes | ShardError:
    """The data, or the error that it is not what the index says."""
    if len(data) == location.length and google_crc32c.value(data) == location.crc32c:
        return data
    return not_as_indexed(location, where=where)


def not_as_indexed(location: Location, *, where: str) -> ShardError:
    """The error of a sample whose bytes are not those of the index."""
    return ShardError(
        f"{where}: {location.key} in {location.shard} at offset {location.offset} fails its checksum",
        hint="run `biovfm verify --deep` on the dataset",
    )
