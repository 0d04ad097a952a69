"""How many processors this process may use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
"""Of the second version of control groups: microseconds of processors in so many microseconds, or `max`."""

__all__ = ["usable_cores"]


def usable_cores() -> int:
    """Those that its affinity and the quota of its container leave to it, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(cores, _quota() or cores), 1)


def _quota() -> int | None:
    """Whole processors that the container's quota comes to, rounded up; None where there is none."""
    try:
        used, period = _QUOTA.read_text(encoding="ascii").split()
        return None if used == "max" else -(-int(used) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None
