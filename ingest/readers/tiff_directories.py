"""The chain of directories of a TIFF, followed before a library does: circles and absurd numbers end there.

Only the counts and the links are looked at, so that it costs next to nothing (TIFF 6.0, section 2; BigTIFF).
"""

from __future__ import annotations

import struct
from typing import Final

from ingest.raw.items import RejectError

__all__ = ["check_directories"]

_MOST_DIRECTORIES: Final = 1 << 16
_MOST_ENTRIES: Final = 1 << 12


def check_directories(data: bytes) -> int:
    """How many directories a TIFF's main chain has.

    Raises:
        RejectError: The chain runs in a circle or out of the file, or is absurdly long.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = len(data) >= 16 and struct.unpack_from(f"{order}H", data, 2)[0] == 43
    at = _number(data, 8 if big else 4, f"{order}{'Q' if big else 'L'}")
    seen: set[int] = set()
    while at:
        if at in seen:
            raise RejectError("unreadable", "directories that form a circle")
        if len(seen) >= _MOST_DIRECTORIES:
            raise RejectError("over_budget", f"more than {_MOST_DIRECTORIES} directories")
        seen.add(at)
        entries = _number(data, at, f"{order}{'Q' if big else 'H'}")
        if entries > _MOST_ENTRIES:
            raise RejectError("unreadable", f"a directory of {entries} entries")
        after = at + (8 + 20 * entries if big else 2 + 12 * entries)
        if after + (8 if big else 4) > len(data):
            break  # what is there of a cut file is still read
        at = _number(data, after, f"{order}{'Q' if big else 'L'}")
    return len(seen)


def _number(data: bytes, at: int, form: str) -> int:
    try:
        return int(struct.unpack_from(form, data, at)[0])
    except (struct.error, OverflowError):
        return 0
