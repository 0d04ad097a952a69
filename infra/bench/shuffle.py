"""How well the windowed order mixes, against a perfect shuffle.

    python -m infra.bench.shuffle                       # the catalogue's 61 sources at their published sizes
    python -m infra.bench.shuffle --samples 200000000   # the same proportions, scaled
    python -m infra.bench.shuffle --json

Two figures. *Rank correlation* (Spearman) between a sample's place in the index and its place in the epoch: 0 is
perfect. *Same-source pairs*: the share of pairs in a global batch that come from one source, averaged over batches,
over what a perfect shuffle gives: 1 is perfect. Memory is that of the epoch's order and one batch of it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.stream.order import EpochOrder, OrderSettings

SAMPLES_PER_SHARD = 1_430
"""Images of 46 kB in a shard of 64 MiB."""


def catalogue_plan(total: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples of each shard and source number of each shard, from the catalogue's published image counts."""
    from ingest.source.spec import catalogue_ids, load_spec

    sizes = [load_spec(source).expected_images or 0 for source in catalogue_ids()]
    scale = 1.0 if total is None else total / sum(sizes)
    counts: list[int] = []
    sources: list[int] = []
    for number, size in enumerate(sizes):
        whole, rest = divmod(round(size * scale), SAMPLES_PER_SHARD)
        parts = [SAMPLES_PER_SHARD] * whole + ([rest] if rest else [])
        counts += parts
        sources += [number] * len(parts)
    return np.asarray(counts, dtype=np.int64), np.asarray(sources, dtype=np.int64)


def measure(
    counts: NDArray[np.int64], sources: NDArray[np.int64], settings: OrderSettings, *, num_batches: int
) -> dict[str, Any]:
    """The figures of one setting, over `num_batches` batches spread over the epoch."""
    tracemalloc.start()
    started = time.perf_counter()
    order = EpochOrder(counts, settings, epoch=0)
    order.batch(order.num_batches // 2)
    made = time.perf_counter()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    firsts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    places, ranks, same = [], [], []
    for index in np.linspace(0, order.num_batches - 1, num_batches).astype(int).tolist():
        shards, rows = order.batch(index)
        places.append(firsts[shards] + rows)
        ranks.append(np.arange(len(rows)) + index * len(rows))
        same.append(_same_pairs(sources[shards]))
    batched = time.perf_counter()
    share = np.bincount(sources, weights=counts) / counts.sum()
    return {
        "samples": int(counts.sum()),
        "shards": len(counts),
        "global_batch": settings.global_batch,
        "lanes": settings.num_lanes,
        "window": settings.window,
        "rank_correlation": round(_spearman(np.concatenate(places), np.concatenate(ranks)), 4),
        "same_source_pairs": round(float(np.mean(same) / (share**2).sum()), 3),
        "order_seconds": round(made - started, 3),
        "batch_milliseconds": round(1000 * (batched - made) / num_batches, 2),
        "peak_memory_mb": round(peak / 1e6, 1),
    }


def _same_pairs(sources: NDArray[np.int64]) -> float:
    counts = np.bincount(sources)
    return float((counts * (counts - 1)).sum() / (len(sources) * (len(sources) - 1)))


def _spearman(one: NDArray[np.int64], two: NDArray[np.int64]) -> float:
    first, second = (values.argsort().argsort().astype(np.float64) for values in (one, two))
    return float(np.corrcoef(first, second)[0, 1])


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, help="scale the catalogue to so many samples")
    parser.add_argument("--batches", type=int, default=50, help="batches to look at")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    counts, sources = catalogue_plan(arguments.samples)
    rows = [
        measure(
            counts,
            sources,
            OrderSettings(global_batch=batch, num_lanes=lanes, window=window),
            num_batches=arguments.batches,
        )
        for batch, lanes, window in [
            (256, 0, 256),
            (2048, 0, 256),
            (2048, 0, 4096),
            (2048, 1024, 256),
            (2048, 2048, 256),
        ]
    ]
    if arguments.json:
        print(json.dumps(rows))
        return 0
    print("  ".join(f"{name:>18}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>18}" for value in row.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
