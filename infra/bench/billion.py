"""What a rank reads of a billion images among a thousand ranks: the order is computed, nothing is read.

    python -m infra.bench.billion --ranks 1024 --batch 65536

For some ranks, over some batches: the blocks of 1 MiB that their samples touch, over the bytes that they use
(`amplification`), beside what `biovfm plan` predicts; the samples per rank; the memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from infra.estimate.constants import Constants
from infra.estimate.figures import sharing_amplification
from shards.stream.order import EpochOrder, OrderSettings


def simulate(*, images: int, ranks: int, batch: int, batches: int, sampled: int = 4) -> Iterator[dict[str, Any]]:
    """One row per sampled rank.

    Args:
        images: Of the dataset, in shards of equal size.
        ranks: World size; must divide the batch.
        batch: Global batch.
        batches: As many are looked at, from the start of the epoch.
        sampled: Ranks that are looked at, evenly spread.
    """
    constants = Constants()
    each = int(constants.image_bytes + constants.sample_overhead_bytes)
    per_shard, block = int(constants.shard_bytes) // each, int(constants.request_bytes)
    began = time.perf_counter()
    counts = np.full(-(-images // per_shard), per_shard, dtype=np.int64)
    order = EpochOrder(counts, OrderSettings(global_batch=batch), 0)
    order.batch(0, rank=0, world_size=ranks)
    first_batch_seconds = time.perf_counter() - began
    for rank in sorted({int(place) for place in np.linspace(0, ranks - 1, sampled)}):
        touched, used = [], 0
        for index in range(min(batches, order.num_batches)):
            shards, rows = order.batch(index, rank=rank, world_size=ranks)
            touched.append(shards * (int(constants.shard_bytes) // block + 1) + rows * each // block)
            used += len(shards)
        yield {
            "rank": rank,
            "samples": used,
            "amplification": len(np.unique(np.concatenate(touched))) * block / (used * each),
            "predicted": sharing_amplification(ranks=ranks, batch=batch, constants=constants),
            "order_of_first_batch_seconds": first_batch_seconds,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a JSON line for each rank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000_000)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=65_536)
    parser.add_argument("--batches", type=int, default=1000)
    chosen = parser.parse_args(argv)
    for row in simulate(images=chosen.images, ranks=chosen.ranks, batch=chosen.batch, batches=chosen.batches):
        sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
