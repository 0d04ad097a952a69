"""Processor time of the stream per image, against the bare decoder's on the same images.

    python -m infra.bench.stream_cpu [--images 4000] [--rounds 9] [--workloads A M]

The workloads are those of `infra.bench.decode`. Each round decodes all images by calls of the decoder alone, in chunks
of 32, and then takes as many from a stream: reading, checksums, order and batches are what the ratio shows. Both sides
use as many threads, since two threads on one core each take longer, and count the processor time of the whole process.

The stream stays open over all rounds. Its queues are full and its threads idle when a round's part of it begins and
again when that ends, so exactly the images that were taken are counted. Starting a stream is not: its arrays are used
again for ever, and what their first use costs (the kernel clears 0.8 GB for M) belongs to no image.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from infra.bench.decode import WORKLOADS, make_corpus, package_folders, with_decoder
from infra.bench.store_stream import build
from shards.decode import Crops, open_decoder
from shards.stream import Batch, Stream

__all__ = ["measure"]

BATCH: Final = 256
THREADS: Final = 2
FIRST: Final = 8
"""Batches before the first round."""
_IDLE_SECONDS: Final = 0.1
_IDLE_SHARE: Final = 0.02
"""Of a core; below it the stream's threads wait for room in their queues."""


def main() -> None:
    """Print one JSON object a workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=["A", "M"])
    options = parser.parse_args()
    images = make_corpus(package_folders(), options.images, seed=3)
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "dataset"
        build(str(dataset), images, copies=1)
        for name in options.workloads:
            figures = measure(str(dataset), images, WORKLOADS[name], rounds=options.rounds)
            print(json.dumps({"workload": name, **figures}), flush=True)


def measure(dataset: str, images: Sequence[bytes], crops: tuple[Crops, ...], *, rounds: int) -> dict[str, Any]:
    """CPU milliseconds per image of both sides and the median of the rounds' ratios; a first round is not counted.

    Args:
        dataset: A dataset of these images.
        images: JPEGs.
        crops: What to cut.
        rounds: How often each side runs.
    """
    decode = with_decoder(open_decoder("auto", "fast"))
    batches = max(len(images) // BATCH, 1)
    bare, streamed = [], []
    with Stream(dataset, crops=crops, global_batch=BATCH, num_threads=THREADS) as stream:
        taken = iter(stream)
        _take(taken, FIRST)
        for _ in range(rounds + 1):
            began = time.process_time()
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda first: decode(images[first::THREADS], crops), range(THREADS)))
            between = time.process_time()
            _take(taken, batches)
            bare.append(1000 * (between - began) / len(images))
            streamed.append(1000 * (time.process_time() - between) / (batches * BATCH))
    ratios = [stream / alone for stream, alone in zip(streamed[1:], bare[1:], strict=True)]
    return {
        "bare_cpu_ms": round(statistics.median(bare[1:]), 4),
        "stream_cpu_ms": round(statistics.median(streamed[1:]), 4),
        "stream_over_bare": round(statistics.median(ratios), 3),
        "rounds": rounds,
        "images": len(images),
    }


def _take(batches: Iterator[Batch], num: int) -> None:
    """Take some batches and wait until those behind them lie ready."""
    for _ in itertools.islice(batches, num):
        pass
    busy = 1.0
    while busy > _IDLE_SHARE:
        began = time.process_time()
        time.sleep(_IDLE_SECONDS)
        busy = (time.process_time() - began) / _IDLE_SECONDS


if __name__ == "__main__":
    main()
