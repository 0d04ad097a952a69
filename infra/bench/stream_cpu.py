"""Processor time of the stream per image, against the bare decoder's on the same images.

    python -m infra.bench.stream_cpu [--images 4000] [--rounds 9] [--workloads A M]

The workloads are those of `infra.bench.decode`. Each round decodes all images by calls of the decoder alone, in chunks
of 32, and then streams as many, once its queues are full: reading, checksums, order and batches are what the ratio
shows. Both sides use as many threads, since two threads on one core each take longer, and count the processor time of
the whole process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from infra.bench.decode import WORKLOADS, make_corpus, package_folders, with_decoder
from infra.bench.store_stream import build
from shards.decode import Crops, open_decoder
from shards.stream import Stream

__all__ = ["measure"]

BATCH: Final = 256
THREADS: Final = 2
FIRST: Final = 5
"""The batch behind which the stream is measured."""


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
    bare, streamed = [], []
    for _ in range(rounds + 1):
        began = time.process_time()
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda first: decode(images[first::THREADS], crops), range(THREADS)))
        bare.append(1000 * (time.process_time() - began) / len(images))
        streamed.append(_stream_ms(dataset, crops, batches=max(len(images) // BATCH, 1)))
    ratios = [stream / alone for stream, alone in zip(streamed[1:], bare[1:], strict=True)]
    return {
        "bare_cpu_ms": round(statistics.median(bare[1:]), 4),
        "stream_cpu_ms": round(statistics.median(streamed[1:]), 4),
        "stream_over_bare": round(statistics.median(ratios), 3),
        "rounds": rounds,
        "images": len(images),
    }


def _stream_ms(dataset: str, crops: tuple[Crops, ...], *, batches: int) -> float:
    """Milliseconds of the processor per image of some batches in a row, the queues full before them and behind them."""
    began = 0.0
    with Stream(dataset, crops=crops, global_batch=BATCH, num_threads=THREADS) as stream:
        for number, _ in enumerate(stream, 1):
            if number == FIRST:
                began = time.process_time()
            elif number == FIRST + batches:
                break
        return 1000 * (time.process_time() - began) / (batches * BATCH)


if __name__ == "__main__":
    main()
