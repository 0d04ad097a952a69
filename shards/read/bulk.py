"""Many samples of local shards in one call into C: read, checked and packed into one buffer, without the interpreter.

The buffers are used again once nobody holds a view into them, so that a raw stream does not pay for fresh memory.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shards.decode.native_decoder import NativeUnavailableError, load

_IDLE = 2
"""References to a buffer that nobody reads: the pool's, and the call's that counts them."""
_GRAIN = 1 << 20


class ReadStatus(IntEnum):
    """What became of one sample."""

    OK = 0
    SHORT = 1
    CHANGED = 2
    FAILED = 3


@functools.cache
def native_library() -> ctypes.CDLL | None:
    """The extension where it is built and this processor has a fast CRC, else None."""
    try:
        library = load()
    except NativeUnavailableError:
        return None
    pointer, i32 = ctypes.c_void_p, ctypes.c_int32
    library.bv_read.restype, library.bv_read.argtypes = None, [i32, *[pointer] * 7]
    library.bv_crc32c.restype, library.bv_crc32c.argtypes = ctypes.c_uint32, [pointer, ctypes.c_uint64, i32]
    return library if library.bv_crc_is_fast() else None


class BulkReader:
    """Reads chunks of samples; safe to use from several threads.

    Args:
        library: The extension.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._pool: list[NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def read(
        self,
        files: ArrayLike,
        offsets: ArrayLike,
        lengths: ArrayLike,
        crcs: ArrayLike,
    ) -> tuple[list[memoryview], NDArray[np.int32]]:
        """Read one chunk.

        Args:
            files: Open file descriptor of each sample.
            offsets: First byte of each.
            lengths: Bytes of each.
            crcs: CRC-32C of each.

        Returns:
            A read-only view of each sample's bytes, and `(n,)` int32 of `ReadStatus`.
        """
        descriptors = np.array(files, np.int32)
        num = len(descriptors)
        columns = np.empty((4, num), np.int64)
        columns[0], columns[1], columns[2] = offsets, lengths, crcs
        ends = columns[1].cumsum()
        np.subtract(ends, columns[1], out=columns[3])
        buffer = self._take(int(ends[-1]))
        status = np.zeros(num, np.int32)
        first = columns.ctypes.data
        rows = range(first, first + columns.nbytes, 8 * num)
        self._library.bv_read(num, descriptors.ctypes.data, *rows, buffer.ctypes.data, status.ctypes.data)
        view = memoryview(buffer.data).toreadonly()
        bounds = zip(columns[3].tolist(), ends.tolist(), strict=True)
        return [view[start:stop] for start, stop in bounds], status

    def _take(self, size: int) -> NDArray[np.uint8]:
        with self._lock:
            for number in range(len(self._pool)):
                if sys.getrefcount(self._pool[number]) <= _IDLE:
                    if len(self._pool[number]) < size:
                        self._pool[number] = _allocate(size)
                    return self._pool[number][:]
            self._pool.append(_allocate(size))
            return self._pool[-1][:]


def _allocate(size: int) -> NDArray[np.uint8]:
    roomy = size + size // 4  # a little larger chunk must not cost fresh memory
    return np.empty(-(-roomy // _GRAIN) * _GRAIN, np.uint8)
