"""Compressed samples out of shards on a local disk, by the offsets that the index gives."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shards.decode.base import Blob
from shards.errors import NotFoundError, ShardError, StoreError
from shards.read.bulk import BulkReader, ReadStatus, native_library
from shards.read.locations import Location, Locations, checked, not_as_indexed
from shards.store import Store


class FileReader:
    """Reads from shards on a local disk.

    By positioned reads, not memory maps: a read leaves the interpreter to the other threads, costs half of what page
    faults do, and a shard that was cut short is a bad sample instead of the end of the process.

    Args:
        store: The dataset's store; has a file for every shard.
        capacity: Shards to keep open.
    """

    ahead = None
    retries = 0

    def __init__(self, store: Store, *, capacity: int = 256) -> None:
        self._store = store
        self._capacity = capacity
        self._files: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()
        library = native_library()
        self._bulk = None if library is None else BulkReader(library)
        self.bytes_read = 0

    def read(self, locations: Sequence[Location]) -> list[Blob | ShardError]:
        """The compressed images, in order; views into a buffer of the reader where the extension is there."""
        columns = Locations.of(locations)
        of_sample = columns.shards.tolist()
        numbers = list(dict.fromkeys(of_sample))
        opened = dict(zip(numbers, self._open([columns.paths[number] for number in numbers]), strict=True))
        files = [opened[number] for number in of_sample]
        found = self._read_each(columns, files) if self._bulk is None else self._read_bulk(columns, files)
        with self._lock:
            self.bytes_read += int(columns.lengths.sum())
        return found

    def _read_each(self, locations: Locations, files: Sequence[_OpenFile]) -> list[Blob | ShardError]:
        where = self._store.url
        return [
            checked(location, file.read(location.offset, location.length), where=where)
            for location, file in zip(locations, files, strict=True)
        ]

    def _read_bulk(self, locations: Locations, files: Sequence[_OpenFile]) -> list[Blob | ShardError]:
        assert self._bulk is not None
        views, status = self._bulk.read([file.descriptor for file in files], *locations.places.T[:3])
        found: list[Blob | ShardError] = [*views]
        for number in np.flatnonzero(status).tolist():
            location = locations[number]
            if status[number] == ReadStatus.FAILED:
                files[number].read(location.offset, location.length)  # raises what the system says
            found[number] = not_as_indexed(location, where=self._store.url)
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
