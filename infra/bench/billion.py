"""What a rank reads of a billion images among a thousand ranks: the order is computed, nothing is read.

    python -m infra.bench.billion --ranks 1024 --batch 16384 --lanes 1024

For some ranks, over some batches: the blocks of 1 MiB that their samples touch, over the bytes that they use
(`amplification`), beside what `biovfm plan` predicts; these bytes; the time and memory that the order takes.
And what becomes of the run when hosts die or are slow:

- `read_again`: half the ranks are gone in the middle, the others go on with their cache: the share of what a rank reads
  next that a lost rank had read before, since windows that were open are dealt anew.
- `slow_down`: how many times longer the steps take when this rank's link has a quarter of the rate that keeps it at
  80 %. Every step waits for its slowest rank; what was read ahead only puts it off.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.estimate.constants import Constants
from infra.estimate.figures import sharing_amplification
from shards.stream.order import MAX_LANES, EpochOrder, OrderSettings, default_lanes

_AHEAD = 3
"""Batches that a stream reads ahead."""
_BUSY, _SLOW = 0.8, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Which blocks of the dataset ranks touch.

    Attributes:
        order: Of the epoch.
        per_shard: Blocks of a shard.
        sample_bytes: Of a sample with what surrounds it.
        block_bytes: Of a block.
    """

    order: EpochOrder
    per_shard: int
    sample_bytes: int
    block_bytes: int

    def of_batch(self, index: int, *, rank: int, ranks: int) -> NDArray[np.int64]:
        """Numbers of the blocks that a rank's samples of a batch begin in, one each."""
        shards, rows = self.order.batch(index, rank=rank, world_size=ranks)
        return shards * self.per_shard + rows * self.sample_bytes // self.block_bytes

    def of_batches(self, batches: range, *, rank: int, ranks: int) -> NDArray[np.int64]:
        """The blocks of several batches, each once."""
        parts = [self.of_batch(index, rank=rank, ranks=ranks) for index in batches]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    def new_bytes(self, batches: range, *, rank: int, ranks: int) -> list[int]:
        """Bytes that a rank reads for each batch, with a cache of all it has read."""
        known: set[int] = set()
        found = []
        for index in batches:
            fresh = set(self.of_batch(index, rank=rank, ranks=ranks).tolist()) - known
            known |= fresh
            found.append(len(fresh) * self.block_bytes)
        return found


def simulate(
    *, images: int, ranks: int, batch: int, batches: int, sampled: int = 4, most_lanes: int = MAX_LANES
) -> Iterator[dict[str, Any]]:
    """One row per sampled rank.

    Args:
        images: Of the dataset, in shards of equal size.
        ranks: World size; must divide the batch.
        batch: Global batch.
        batches: As many are looked at, from the start of the epoch.
        sampled: Ranks that are looked at, evenly spread.
        most_lanes: As in a lock.
    """
    constants = Constants()
    each = int(constants.image_bytes + constants.sample_overhead_bytes)
    per_shard, block = int(constants.shard_bytes) // each, int(constants.request_bytes)
    began = time.perf_counter()
    counts = np.full(-(-images // per_shard), per_shard, dtype=np.int64)
    settings = OrderSettings(global_batch=batch, num_lanes=default_lanes(batch, most_lanes))
    order = EpochOrder(counts, settings, 0)
    order.batch(0, rank=0, world_size=ranks)
    first_batch_seconds = time.perf_counter() - began
    blocks = Blocks(
        order=order, per_shard=int(constants.shard_bytes) // block + 1, sample_bytes=each, block_bytes=block
    )
    looked_at = range(min(batches, order.num_batches))
    for rank in sorted({int(place) for place in np.linspace(0, ranks - 1, sampled)}):
        used = len(looked_at) * batch // ranks * each
        needed = blocks.new_bytes(looked_at, rank=rank, ranks=ranks)
        yield {
            "rank": rank,
            "samples": len(looked_at) * batch // ranks,
            "bytes_used": used,
            "bytes_read": sum(needed),
            "amplification": sum(needed) / used,
            "predicted": sharing_amplification(ranks=ranks, batch=batch, constants=constants, most_lanes=most_lanes),
            "read_again": read_again(blocks, looked_at, rank=rank, ranks=ranks),
            "slow_down": slow_down(needed),
            "order_of_first_batch_seconds": first_batch_seconds,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }


def read_again(blocks: Blocks, batches: range, *, rank: int, ranks: int) -> float:
    """Half the ranks are lost in the middle: the share of a survivor's next blocks that a lost rank had read."""
    if ranks < 2:
        return 0.0
    middle = len(batches) // 2
    survivor, lost = rank // 2 * 2, rank // 2 * 2 + 1
    after = blocks.of_batches(batches[middle:], rank=rank // 2, ranks=ranks // 2)
    kept = blocks.of_batches(batches[:middle], rank=survivor, ranks=ranks)
    gone = blocks.of_batches(batches[:middle], rank=lost, ranks=ranks)
    fresh = np.setdiff1d(after, kept, assume_unique=True)
    return float(np.isin(fresh, gone, assume_unique=True).mean()) if len(fresh) else 0.0


def slow_down(needed: Sequence[int]) -> float:
    """Seconds of the steps with a slow link over those with the link that they were planned for.

    Args:
        needed: Bytes that the rank reads for each batch.
    """
    step = 1.0
    planned = sum(needed) / len(needed) / step / _BUSY
    return _seconds(needed, planned * _SLOW, step) / _seconds(needed, planned, step)


def _seconds(needed: Sequence[int], rate: float, step: float) -> float:
    """When the last step ends: a batch is read once there is room for it, a step begins once its batch is there."""
    begins: list[float] = []
    read = ended = 0.0
    for index, size in enumerate(needed):
        room = begins[index - _AHEAD] if index >= _AHEAD else 0.0
        read = max(read, room) + size / rate
        begins.append(max(ended, read))
        ended = begins[-1] + step
    return ended


def main(argv: Sequence[str] | None = None) -> None:
    """Print a JSON line for each rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000_000)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--batches", type=int, default=1000)
    parser.add_argument("--sampled", type=int, default=4)
    parser.add_argument("--lanes", type=int, default=MAX_LANES)
    chosen = parser.parse_args(argv)
    for row in simulate(
        images=chosen.images,
        ranks=chosen.ranks,
        batch=chosen.batch,
        batches=chosen.batches,
        sampled=chosen.sampled,
        most_lanes=chosen.lanes,
    ):
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
