"""Makes the corpus, its formats and the environments, runs everyone, prints the table."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from infra.bench.peers.contestants import CONTESTANTS, WORKLOADS
from infra.bench.peers.corpus import corpus
from infra.bench.peers.report import as_json, as_table
from infra.bench.peers.run import SPAN, race
from shards.decode import describe_decoder
from shards.files import write_text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.peers", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus, formats and environments")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--frames", type=Path, help="folder of pictures to cut the images from; fetched without it")
    parser.add_argument("--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS))
    names = [contestant.name for contestant in CONTESTANTS]
    parser.add_argument("--peers", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--here", action="store_true", help="make no environments; run what is installed here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--json", type=Path, help="file that gets every measurement")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = options.work / f"corpus-{options.images}"
    images = corpus(folder, options.images, frames=options.frames, workers=os.cpu_count() or 1, say=_say)
    chosen = [contestant for contestant in CONTESTANTS if contestant.name in options.peers]
    rows = race(
        [replace(contestant, requirements=None) for contestant in chosen] if options.here else chosen,
        options.workloads,
        images,
        options.work / "environments",
        rounds=options.rounds,
        batch=options.batch,
        spans=_spans(options.images // options.batch),
        say=_say,
    )
    facts = {
        "images": len(images),
        "mean_bytes": round(images.mean_bytes),
        "batch": options.batch,
        "cores": os.cpu_count(),
        "decoder": str(describe_decoder()),
    }
    print("\n".join(f"{name}: {value}" for name, value in facts.items()) + "\n")
    print(as_table(rows))
    if options.json:
        write_text(options.json, json.dumps(as_json(rows, **facts), indent=1) + "\n")
    return 0


def _spans(batches: int) -> dict[str, tuple[int, int]]:
    """Batches to leave out and to end with, fewer where the corpus is small."""
    return {name: (min(first, batches // 3), min(last, batches - 1)) for name, (first, last) in SPAN.items()}


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
