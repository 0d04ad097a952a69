"""Near-duplicate search at scale: synthetic 256-bit hashes with planted copies and with crowded buckets.

    python -m infra.bench.near_duplicates 1000000 21000000

A tenth of the hashes are copies of others at 0 to 16 bits. A fifth share one of their bands with many others, with
bucket sizes that fall off like a power law, as those of real images do. Prints, for each size, seconds, peak memory,
the share of planted pairs found by distance, and what the bucket cap skipped.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import numpy as np

from ingest.neighbours import EXACT_RADIUS, as_hashes, bands_of, near_pairs

CROWDED_SHARE = 0.2


def synthetic(count: int, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Hashes `(N, 4)`, groups, and the planted pairs: position of the copy, distance of it from its original."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 1 << 64, (count, 4), dtype=np.uint64)
    bands = bands_of(hashes)
    for band in range(8):
        rows = rng.choice(count, int(count * CROWDED_SHARE / 8), replace=False)
        bands[rows, band] = (rng.zipf(1.3, len(rows)) % (1 << 32)).astype(np.uint32)
    num_copies = count // 10
    copies = np.arange(count - num_copies, count)
    originals = rng.integers(0, count - num_copies, num_copies)
    hashes[copies] = hashes[originals]
    bits = rng.integers(0, 17, num_copies)
    for flip in range(16):
        rows = copies[bits > flip]
        place = (np.arange(len(rows)) * 131 + flip * 16 + rng.integers(0, 16, len(rows))) % 256
        hashes[rows, place // 64] ^= np.uint64(1) << (place % 64).astype(np.uint64)
    return hashes, np.arange(count, dtype=np.int64), np.stack([originals, copies], axis=1), bits


def measure(count: int) -> dict[str, Any]:
    """One size."""
    hashes, groups, planted, bits = synthetic(count)
    started = time.perf_counter()
    found = near_pairs(hashes, groups, radius=16, bucket_cap=1000)
    seconds = time.perf_counter() - started
    keys = np.sort(found.first * count + found.second)
    wanted = planted[:, 0] * count + planted[:, 1]
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    hit = keys[at] == wanted if len(keys) else np.zeros(len(wanted), bool)
    exact = bits <= EXACT_RADIUS
    return {
        "hashes": count,
        "seconds": round(seconds, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "compared": found.compared,
        "pairs": len(found.first),
        "planted_within_7_found": f"{int(hit[exact].sum())} of {int(exact.sum())}",
        "planted_8_to_16_found": round(float(hit[~exact].mean()), 3),
        "skipped_buckets": found.skipped_buckets,
        "skipped_rows": found.skipped_rows,
    }


if __name__ == "__main__":
    assert as_hashes([bytes(32)]).shape == (1, 4)
    for argument in sys.argv[1:] or ["1000000"]:
        print(measure(int(argument)), flush=True)
