"""How the processes of an ingest job take their memory: it does not grow with the number of images, and has an end.

`arrow_from_c` and `keep_freed` are to be called before pyarrow is imported; nothing here changes a result.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["arrow_from_c", "keep_freed", "limit_growth"]

_LIBRARIES_BYTES: Final = 384 << 20
"""What decoding libraries take for themselves once they are loaded, beyond what the budget is for."""

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


def limit_growth(num_bytes: int) -> int:
    """Let this process take so many bytes more than it has now, and no more.

    It is the second line behind the budget that readers keep: what a decoder takes without asking ends in an error of
    that process, not in a machine without memory. Private data count (Linux's RLIMIT_DATA), not address space, of
    which libraries reserve much and use little, so a job that keeps the budget never meets the limit.

    Args:
        num_bytes: The budget of decoded bytes; 0 sets no limit.

    Returns:
        The limit in bytes; 0 where there is none, because the system has no such limit.
    """
    if num_bytes <= 0:
        return 0
    try:
        import resource

        held = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"), re.MULTILINE)
        if held is None:
            return 0
        limit = int(held[1]) * 1024 + num_bytes + _LIBRARIES_BYTES
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    except (ImportError, OSError, ValueError):
        return 0
    return limit
