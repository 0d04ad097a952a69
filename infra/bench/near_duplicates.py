"""Near-duplicate search at scale: synthetic 256-bit hashes with planted copies, as crowded as those of real images.

    python -m infra.bench.near_duplicates 1000000 21000000

- A tenth of the hashes are copies of others, at 0 to 16 bits.
- Three tenths take one of their bands from a power law, so that two hashes share a band 9 times in 10,000, as often as
  two real images of different series do; with uniform bits it would be 2 in a thousand million.
- A hundredth are look-alikes: 200 families, unequal in size, each 24 to 64 bits around one hash. They share bands by
  the thousand and are no copies.
- One in 10,000, at least 2,000, are all but one picture (0 to 2 bits), as blank scans with a logo are: their buckets
  stay crowded however they are cut, so the cap leaves them out and says so.

Prints for each size, in a process of its own: seconds, peak memory, the planted pairs that were found by distance, and
what the cap skipped. One process on one core; `ingest.duplicates.pairs` says how the search is spread over machines.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.duplicates.pairs import BANDS, EXACT_RADIUS, Hashes, bands_of, near_pairs

POWER_LAW_SHARE = 0.3
NUM_FAMILIES = 200
RADIUS = 16
BUCKET_CAP = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """Hashes `(N, 4)`, and the planted pairs: `(P, 2)` positions and `(P,)` distances."""

    hashes: Hashes
    planted: NDArray[np.int64]
    bits: NDArray[np.int64]


def synthetic(count: int, seed: int = 0) -> Material:
    """The hashes, in this order: ordinary ones, look-alikes, all but one picture, copies of ordinary ones."""
    rng = np.random.default_rng(seed)
    num_copies, num_alike, num_same = count // 10, count // 100, max(2000, count // 10_000)
    num_ordinary = count - num_copies - num_alike - num_same
    hashes = rng.integers(0, 1 << 64, (count, 4), dtype=np.uint64)
    bands = bands_of(hashes)
    for band in range(BANDS):
        rows = rng.choice(num_ordinary, int(count * POWER_LAW_SHARE / BANDS), replace=False)
        bands[rows, band] = (rng.zipf(1.3, len(rows)) % (1 << 32)).astype(np.uint32)
    alike = np.arange(num_ordinary, num_ordinary + num_alike)
    hashes[alike] = hashes[rng.zipf(1.3, num_alike) % NUM_FAMILIES]
    _flip(hashes, alike, rng.integers(24, 65, num_alike), rng)
    same = np.arange(num_ordinary + num_alike, count - num_copies)
    hashes[same] = hashes[NUM_FAMILIES]
    _flip(hashes, same, rng.integers(0, 3, num_same), rng)
    copies = np.arange(count - num_copies, count)
    originals = rng.integers(NUM_FAMILIES + 1, num_ordinary, num_copies)
    hashes[copies] = hashes[originals]
    bits = rng.integers(0, RADIUS + 1, num_copies)
    _flip(hashes, copies, bits, rng)
    return Material(hashes=hashes, planted=np.stack([originals, copies], axis=1), bits=bits)


def _flip(hashes: Hashes, rows: NDArray[np.int64], bits: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Change so many random bits of each row, no bit twice."""
    change = np.zeros((len(rows), 4), np.uint64)
    for number in range(int(bits.max(initial=0))):
        left = np.flatnonzero(bits > number)
        while len(left):
            place = rng.integers(0, 256, len(left))
            word, bit = place // 64, np.uint64(1) << (place % 64).astype(np.uint64)
            fresh = (change[left, word] & bit) == 0
            change[left[fresh], word[fresh]] |= bit[fresh]
            left = left[~fresh]
    hashes[rows] ^= change


def measure(count: int) -> dict[str, Any]:
    """One size."""
    material = synthetic(count)
    started = time.perf_counter()
    found = near_pairs(material.hashes, np.arange(count), radius=RADIUS, bucket_cap=BUCKET_CAP)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    keys = np.sort(found.first * count + found.second)
    wanted = material.planted[:, 0] * count + material.planted[:, 1]
    at = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    hit = keys[at] == wanted if len(keys) else np.zeros(len(wanted), bool)
    exact = material.bits <= EXACT_RADIUS
    return {
        "hashes": count,
        "seconds": round(seconds, 1),
        "peak_gb": round(peak / 1e6, 2),
        "compared": found.compared,
        "pairs": len(found.first),
        "planted_within_7_found": f"{int(hit[exact].sum())} of {int(exact.sum())}",
        "planted_8_to_16_found": round(float(hit[~exact].mean()), 3),
        "skipped_buckets": found.skipped_buckets,
        "skipped_rows": found.skipped_rows,
    }


def print_measure(count: int) -> None:
    """One line of JSON."""
    print(json.dumps(measure(count)), flush=True)


def main(arguments: list[str]) -> None:
    """Each size in a process of its own, so that each has its own peak."""
    for argument in arguments or ["1000000"]:
        process = multiprocessing.get_context("spawn").Process(target=print_measure, args=(int(argument),))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main(sys.argv[1:])
