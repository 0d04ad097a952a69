"""Which blocks of remote shards are still needed: those with samples that are announced, or yet to be, and not read.

A block's samples come from one window of the order, or from two that follow each other, so a block is needed from its
first sample's announcement to its last sample's reading. What the rest of an epoch does not use (a lane ends inside
the block, or the stream began in the middle of a window) leaves a block behind that is never read to its end; the
oldest are forgotten when there are too many.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.blocks import BlockId

PlacesOf = Callable[[str], NDArray[np.int64]]
"""Shard path to `(n, 4)` int64, where its selected samples lie; see `shards.rows.ShardRows`."""

_SHARDS_KEPT = 1024


@dataclass(slots=True)
class _Uses:
    total: float
    announced: int = 0
    unread: int = 0


class BlockUses:
    """Counts the samples of each block; safe to use from several threads.

    Args:
        places_of: Where a shard's samples lie; None where that is not known, and no block is ever done with.
        block_bytes: Bytes of a block.
    """

    def __init__(self, places_of: PlacesOf | None, block_bytes: int) -> None:
        self._places_of = places_of
        self._block_bytes = block_bytes
        self._counts: OrderedDict[str, NDArray[np.int64]] = OrderedDict()
        self._uses: OrderedDict[BlockId, _Uses] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._uses)

    def announce(self, block: BlockId) -> None:
        """A sample of the block will be read."""
        total = self._samples_of(block)
        with self._lock:
            uses = self._uses.setdefault(block, _Uses(total))
            self._uses.move_to_end(block)
            uses.announced += 1
            uses.unread += 1

    def read(self, block: BlockId) -> bool:
        """A sample of the block was read.

        Returns:
            Whether it was the last one; the block is forgotten then.
        """
        with self._lock:
            uses = self._uses.get(block)
            if uses is None:
                return False
            self._uses.move_to_end(block)
            uses.unread = max(uses.unread - 1, 0)
            done = not uses.unread and uses.announced >= uses.total
            if done:
                del self._uses[block]
            return done

    def forget_oldest(self) -> BlockId | None:
        """Forget the block that nobody has asked for the longest."""
        with self._lock:
            return self._uses.popitem(last=False)[0] if self._uses else None

    def clear(self) -> None:
        """Forget all blocks."""
        with self._lock:
            self._uses.clear()

    def _samples_of(self, block: BlockId) -> float:
        if self._places_of is None:
            return np.inf
        shard, number = block
        with self._lock:
            counts = self._counts.get(shard)
        if counts is None:
            counts = samples_by_block(self._places_of(shard), self._block_bytes)
            with self._lock:
                self._counts[shard] = counts
                if len(self._counts) > _SHARDS_KEPT:
                    self._counts.popitem(last=False)
        return float(counts[number]) if number < len(counts) else 0.0


def samples_by_block(places: NDArray[np.int64], block_bytes: int) -> NDArray[np.int64]:
    """`(blocks,)` int64, the samples that lie in each block of a shard, wholly or in part."""
    first = places[:, 0] // block_bytes
    last = (places[:, 0] + places[:, 1] - 1) // block_bytes
    steps = np.zeros(int(last.max(initial=0)) + 2, np.int64)
    np.add.at(steps, first, 1)
    np.add.at(steps, last + 1, -1)
    return np.cumsum(steps)[:-1]
