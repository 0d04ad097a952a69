"""A file-like reader over ranges: the next few are fetched while the reader works on one."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future


class RangeStream(io.RawIOBase):
    """Bytes `start … size` of an object, forwards only.

    It keeps no request open between ranges, so that a reader may pause for as long as it likes; it holds at most
    `readahead + 1` ranges of `range_bytes` in memory.

    Args:
        fetch: `(offset, length, cancelled)` to exactly those bytes.
        submit: Runs `fetch` in another thread.
        start: First byte.
        size: Size of the object in bytes.
        range_bytes: Bytes a range.
        readahead: Ranges fetched ahead.
    """

    def __init__(
        self,
        *,
        fetch: Callable[[int, int, threading.Event], bytes],
        submit: Callable[..., Future[bytes]],
        start: int,
        size: int,
        range_bytes: int,
        readahead: int,
    ) -> None:
        self._fetch = fetch
        self._submit = submit
        self._size = size
        self._range_bytes = range_bytes
        self._readahead = readahead
        self._next = start
        self._position = start
        self._pending: deque[Future[bytes]] = deque()
        self._current = memoryview(b"")
        self._cancelled = threading.Event()

    def readable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Offset in the object of the next byte."""
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # the stub says WriteableBuffer
        """Fill some of `buffer`; 0 at the end."""
        if not self._current and not self._advance():
            return 0
        count = min(len(buffer), len(self._current))
        buffer[:count] = self._current[:count]
        self._current = self._current[count:]
        self._position += count
        return count

    def close(self) -> None:
        """Stop what is being fetched."""
        if not self.closed:
            self._cancelled.set()
            for future in self._pending:
                future.cancel()
            self._pending.clear()
            self._current = memoryview(b"")
        super().close()

    def _advance(self) -> bool:
        while self._next < self._size and len(self._pending) <= self._readahead:
            length = min(self._range_bytes, self._size - self._next)
            self._pending.append(self._submit(self._fetch, self._next, length, self._cancelled))
            self._next += length
        if not self._pending:
            return False
        self._current = memoryview(self._pending.popleft().result())
        return bool(self._current)
