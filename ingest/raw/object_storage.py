"""Raw files on S3, read through the product's own store: its retries, its time limits, its checks.

An object that fits into memory is read whole and compared with its entity tag, where that is an MD5 of the content; so
a byte that changed on the way is asked for again, and makes neither another picture nor a reject.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO, cast

from shards.errors import NotFoundError
from shards.store import Store, open_store

_WHOLE_BLOCKS = 16
"""Objects of up to so many blocks are read whole: those of 64 MiB, and of 1 MiB where only headers are wanted."""


class ObjectFolder:
    """The objects below a URL.

    Args:
        url: Of the folder.
        block_bytes: How much of a larger object is read at a time.
    """

    def __init__(self, url: str, *, block_bytes: int) -> None:
        self._store = open_store(url)
        self._block_bytes = block_bytes

    def list(self) -> Iterator[tuple[str, int]]:
        """Path and size of every object, sorted by path.

        Raises:
            StoreError: They cannot be listed.
        """
        for info in self._store.list(hidden=True):
            yield info.path, info.size

    def open(self, path: str) -> BinaryIO:
        """A seekable stream.

        Raises:
            FileNotFoundError: There is no such object.
            StoreError: The storage failed, also while the stream is read.
        """
        try:
            size = self._store.stat(path).size
            if size <= _WHOLE_BLOCKS * self._block_bytes:
                return io.BytesIO(self._store.read(path))
        except NotFoundError as error:
            raise FileNotFoundError(path) from error
        blocks = cast("io.RawIOBase", _Blocks(self._store, path, size))
        return io.BufferedReader(blocks, self._block_bytes)


class _Blocks(io.RawIOBase):
    """A large object, read range by range."""

    def __init__(self, store: Store, path: str, size: int) -> None:
        self._store = store
        self._path = path
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the start of the file")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # the stub says WriteableBuffer
        count = max(min(len(buffer), self._size - self._position), 0)
        buffer[:count] = self._store.read_range(self._path, self._position, count)
        self._position += count
        return count
