"""The Parquet files of a table on object storage, as Arrow reads them: through the store, with its retries.

deltalake's own file system gives up where the answer to a read breaks off; a question that has run for minutes would
end with it.

A reply that the network changed must not become rows. A small file is read whole and held against the hash in its
name; of a larger one the footer is read until two replies agree, and Arrow checks the checksums of its pages.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem
from pyarrow import fs

from shards.dataset.store_errors import failures
from shards.dataset.table_files import hash_in_name
from shards.errors import SampleIndexError
from shards.store import Store
from shards.store.settings import MIB
from shards.store.settled import settled

Read = TypeVar("Read")

WHOLE_BYTES = 4 * MIB
"""Files up to this size are read whole, in one request: as long as the two or three that a footer and columns take."""
_KEPT_BYTES = 4 * WHOLE_BYTES
"""So much of them is kept at hand while the table is: Arrow opens a file anew for each question."""
_FOOTER_END = 8
"""Bytes after the footer's metadata: their length, and a magic number."""
_QUIET_SECONDS = 0.05


class _Reads:
    """The calls that Arrow's threads are in. A process that ends waits for them.

    A thread of another library that is inside the interpreter when that ends would end the process by a signal.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._last = 0.0
        self._is_ending = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """A call; refused once the process ends."""
        with self._changed:
            if self._is_ending:
                raise OSError("the process is ending")
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._last = time.monotonic()
                self._changed.notify_all()

    def end(self) -> None:
        """Refuse further calls, wait for those under way, and a moment longer: their threads have yet to leave."""
        with self._changed:
            self._is_ending = True
            self._changed.wait_for(lambda: not self._inside)
        time.sleep(max(self._last + _QUIET_SECONDS - time.monotonic(), 0.0) if self._last else 0.0)


_reads = _Reads()
atexit.register(_reads.end)
os.register_at_fork(after_in_child=_reads.__init__)  # type: ignore[misc] # the threads stay in the parent


class _StoreFiles(AbstractFileSystem):  # type: ignore[misc] # fsspec has no types
    """A folder of a store for fsspec, for reading alone.

    Args:
        store: The folder.
        sizes: Sizes in bytes of the files that are known, by path; the others are asked for.
    """

    protocol = "biovfm-table"
    cachable = False

    def __init__(self, store: Store, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self._store = store
        self._sizes = sizes

    def info(self, path: str, **_: object) -> dict[str, Any]:
        """Name, size and type of a file.

        Raises:
            StoreError: The storage failed.
        """
        size = self._sizes[path] if path in self._sizes else self._store.stat(path).size
        return {"name": path, "size": size, "type": "file"}

    def content_or_file(self, path: str) -> bytes | _File:
        """A small file, compared with the hash in its name, and where that differs with its entity tag too.

        Returns:
            The content; of a large file one to read from.
        """
        size = self.info(path)["size"]
        if size > WHOLE_BYTES:
            return _File(self, path, "rb", cache_type="none", size=size)
        named = hash_in_name(path)
        data = self._store.read_range(path, 0, size) if named else self._store.read(path)
        if not _is(named, data):
            data = self._store.read(path)
        if not _is(named, data):
            raise SampleIndexError(
                f"{self._store.url}/{path}: its content is not what its name says",
                hint="run `biovfm verify --deep` on the dataset",
            )
        return data

    def read_range(self, path: str, start: int, end: int, size: int) -> bytes:
        """The bytes from `start` up to `end` of a file of `size` bytes."""
        if end < size - _FOOTER_END:
            return self._store.read_range(path, start, end - start)
        where = f"{self._store.url}/{path}"
        return settled(lambda: self._store.read_range(path, start, end - start), where)


def _is(named: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest().startswith(named)


def _noted(read: Callable[[], Read]) -> Read | None:
    """What a call of Arrow reads; None where that fails, which is noted (see `store_errors`)."""
    try:
        with _reads.one():
            return read()
    except Exception as error:  # noqa: BLE001 - none may pass through Arrow
        failures.note(error)
        return None


class _File(AbstractBufferedFile):  # type: ignore[misc] # likewise
    """A file that is read in exactly the ranges that Arrow asks for; what cannot be read is zeros, no Parquet."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        found: bytes | None = _noted(lambda: self.fs.read_range(self.path, start, end, self.size))
        return bytes(end - start) if found is None else found


class _Handler(fs.FSSpecHandler):  # type: ignore[misc] # pyarrow has no types
    """What Arrow calls: small files become memory of its own, which its threads read without the interpreter."""

    def __init__(self, files: _StoreFiles) -> None:
        super().__init__(files)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, pa.Buffer] = OrderedDict()

    def open_input_file(self, path: str) -> pa.NativeFile:
        with self._lock:
            memory = self._kept.get(path)
        if memory is None:
            found = _noted(lambda: self.fs.content_or_file(path))
            if isinstance(found, _File):
                return pa.PythonFile(found, mode="r")
            memory = _memory_of(found or b"")  # of nothing Arrow says that it is no Parquet file
            if not found:
                return pa.BufferReader(memory)
        with self._lock:
            self._kept[path] = memory
            self._kept.move_to_end(path)
            while sum(each.size for each in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return pa.BufferReader(memory)


def _memory_of(data: bytes) -> pa.Buffer:
    memory = pa.allocate_buffer(len(data))
    memoryview(memory).cast("B")[:] = data
    return memory


def arrow_files(store: Store, sizes: Mapping[str, int]) -> fs.FileSystem:
    """A file system for Arrow whose root is the folder of a store.

    Args:
        store: The table's folder.
        sizes: Sizes in bytes of its files, by path; a file that is not among them costs a request more.
    """
    return fs.PyFileSystem(_Handler(_StoreFiles(store, sizes)))
