"""Batch arrays that are used again once nobody holds them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from shards.decode import Crops

Views = tuple[NDArray[np.uint8], ...]
Lender = Callable[[Sequence[tuple[int, ...]]], Views]
"""Gives one array a shape, uint8, for a batch."""
_IDLE = 2
"""References to an array that nobody holds: the ring's tuple's, and the call's that counts them."""


class BatchBuffers:
    """A ring of pre-allocated batches, for a consumer on the host.

    An array counts as free when the ring holds the only reference to it: a batch that a consumer keeps (or a view, or a
    tensor made from it without a copy) is left alone and a new one is made. A copy to a device that is still under way
    holds no reference. Out of this memory, which is not page-locked, a copy has read everything when the call returns;
    page-locked memory is lent by who knows when a copy is done (`Stream.lend`).

    Args:
        num: Samples of a batch on this rank.
        crops: The groups of crops; one array each.
        channels: 1 or 3.
    """

    def __init__(self, num: int, crops: Sequence[Crops], *, channels: int) -> None:
        self.shapes = [(num, group.num, group.size_px, group.size_px, channels) for group in crops]
        self._ring: list[Views] = []
        self._lock = threading.Lock()

    def take(self, _: Sequence[tuple[int, ...]] = ()) -> Views:
        """Arrays to fill, one a group, `(num, crops, size_px, size_px, channels)` uint8."""
        with self._lock:
            for views in self._ring:
                if all(sys.getrefcount(views[number]) <= _IDLE for number in range(len(views))):
                    return tuple(view[:] for view in views)
            views = tuple(np.zeros(shape, dtype=np.uint8) for shape in self.shapes)
            self._ring.append(views)
            return tuple(view[:] for view in views)
