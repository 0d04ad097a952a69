"""How the processes of an ingest job take their memory, so that it does not grow with the number of images.

To be called before pyarrow is imported; nothing here changes a result.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final

__all__ = ["arrow_from_c", "keep_freed"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def arrow_from_c() -> None:
    """Let Arrow use C's allocator: its own keeps what thousands of short-lived tables leave; what a user set stays."""
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def keep_freed() -> None:
    """Freed memory stays with the process: pictures come and go, and fresh pages cost as much as hashing them."""
    with suppress(OSError, AttributeError):  # GNU's C library alone has it
        tune = ctypes.CDLL(None).mallopt
        tune(_M_MMAP_THRESHOLD, 32 << 20)
        tune(_M_TRIM_THRESHOLD, 128 << 20)
