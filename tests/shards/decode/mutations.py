"""Real files with a few bytes changed, taken out or put in: what storage and broken writers leave behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

__all__ = ["damaged_anywhere", "mutated"]


def damaged_anywhere(blob: bytes, seed: int) -> bytes:
    """A file with other bytes in its header or its data, bytes missing or too many, or a marker that nobody wrote."""
    rng = np.random.default_rng(seed)
    changed = bytearray(blob)
    header = max(blob.find(b"\xff\xda"), 30) + 14
    low, high = (2, header) if rng.integers(5) < 3 else (header, len(blob))
    high = min(high, len(blob) - 2)
    places = [int(at) for at in rng.integers(min(low, high - 1), high, rng.integers(1, 4))]
    match rng.integers(4):
        case 0:
            del changed[places[0] : places[0] + int(rng.integers(1, 20))]
        case 1:
            changed[places[0] : places[0]] = rng.bytes(int(rng.integers(1, 6)))
        case 2:
            changed[places[0] : places[0]] = bytes([0xFF, int(rng.integers(256)), 0, int(rng.integers(2, 12))])
        case _:
            for at in places:
                changed[at] = int(rng.integers(256))
    return bytes(changed)


def mutated(files: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of the files, changed once or twice."""
    seeds = st.integers(0, 2**32 - 1)
    once = st.builds(damaged_anywhere, st.sampled_from(files), seeds)
    return st.one_of(once, st.builds(damaged_anywhere, once, seeds))
