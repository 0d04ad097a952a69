"""Errors of reads that Arrow asks for: noted here, for the question that fails by them.

None passes through Arrow. It asks an exception for its text while it holds a lock of its own, and the text takes the
interpreter's; a thread that holds that one and wants the other would wait for ever.
"""

from __future__ import annotations

import threading
from collections import deque

__all__ = ["Failures", "failures"]

_KEPT = 256


class Failures:
    """The last errors, numbered."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: deque[tuple[int, Exception]] = deque(maxlen=_KEPT)
        self._count = 0

    def note(self, error: Exception) -> None:
        """Keep an error."""
        with self._lock:
            self._count += 1
            self._noted.append((self._count, error))

    def mark(self) -> int:
        """The number of errors until now."""
        with self._lock:
            return self._count

    def since(self, mark: int) -> Exception | None:
        """The first error after a mark; it may be that of another question of this process, asked meanwhile."""
        with self._lock:
            return next((error for number, error in self._noted if number > mark), None)


failures = Failures()
