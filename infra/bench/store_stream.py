"""A training stream from S3 against the same stream from local disk, and behind a slow link.

    python -m infra.bench.store_stream                       # workload A: one random crop of 224 an image
    python -m infra.bench.store_stream --images 500 --copies 48 --latency-ms 50 --gbit 1

The stream runs in a process of its own that is bound to one core with one decoding thread, from disk and from S3
alike; the server (and the link) get the other cores. So the server's share of the machine, which a real one would
not take, does not count against the client, while everything the client itself does does.

Behind a link the images stay compressed, as for decoding on the accelerator. The consumer takes them at 0.95 of the
rate that the bandwidth allows: bandwidth over the mean bytes that an image takes in its shard, JSON and tar headers
included. It is never late itself: where it had to wait, it does not catch up. Its stall share is the share of its time
that it waited, told for the `whole` run (the first batch is start-up and left out) and for its two parts: `filling`,
while the shuffle windows of all lanes fill for the first time and more must be fetched than is taken; and `filled`, all
the rest, where epochs end and begin included. The same is done with twice as many images, so that memory can be seen
not to depend on their number: `memory_before_mb` is taken with all libraries loaded and the plan made, `held_limit_mb`
is where the stream stops to fetch ahead; requests under way and batches handed out come on top.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra import s3_server
from infra.bench.decode import make_corpus, package_folders
from infra.bench.link import behind_link
from shards.store import open_store

BATCH = 256
SHARE = 0.95
"""How much of what the bandwidth allows the consumer takes."""


def build(url: str, images: Sequence[bytes], *, copies: int) -> None:
    """A dataset of `len(images) * copies` samples in shards of some 64 MiB."""
    import pyarrow as pa

    from shards.dataset.dataset import Dataset
    from shards.dataset.shard_file import Sample, ShardWriter, shard_path
    from shards.schema import index_schema, rejects_schema

    dataset = Dataset.create(url)
    blank = {field.name: "" if field.type == pa.string() else 0 for field in index_schema()}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for copy in range(copies):
            writer = ShardWriter(Path(folder) / f"{copy}.tar")
            placed = []
            for number, image in enumerate(images):
                key = f"bench-{hashlib.sha256(image + bytes([copy])).hexdigest()[:16]}"
                meta = {"copy": copy, "number": number}
                placement = writer.add(Sample(key=key, extension="jpg", image=image, meta=meta))
                placed.append((key, placement))
            shard = writer.close()
            path = shard_path("bench", "CT", shard.sha256)
            dataset.store.put_if_absent(path, shard.path)
            for key, place in placed:
                known = {"key": key, "source": "bench", "modality": "CT", "shard": path, "extension": "jpg"}
                offsets = {name: getattr(place, name) for name in ("shard_row", "byte_offset", "byte_length", "crc32c")}
                rows.append({**blank, **known, **offsets, "channels": 3, "pixel_sha256": key, "job_id": "bench"})
    table = pa.Table.from_pylist(rows, schema=index_schema())
    dataset.commit(job_id="bench", rows=table, rejects=rejects_schema().empty_table())


def consume(url: str, *, raw: bool, bytes_per_second: float, epochs: int) -> dict[str, Any]:
    """Stream in this process; the consumer is as fast as it can, or takes so many stored bytes a second."""
    from infra.measure import Meter
    from shards.decode import Crops
    from shards.stream.stream import Stream

    crops = () if raw else (Crops(),)
    spans: list[tuple[float, float]] = []
    with Stream(url, crops=crops, global_batch=BATCH, num_threads=1, num_epochs=epochs) as stream:
        before = _memory_mb("VmRSS")
        filling = stream.settings.window * stream.settings.num_lanes // BATCH
        images_per_second = bytes_per_second / stored_bytes(stream)
        meter = Meter()
        asked = time.perf_counter()
        for batch in stream:
            came = time.perf_counter()
            meter.batch(len(batch.keys))
            if images_per_second:
                time.sleep(BATCH / images_per_second)
            left = time.perf_counter()
            spans.append((came - asked, left - came))
            asked = left
        stats = stream.stats()
        held_limit = getattr(stream._reader, "held_limit_bytes", 0)  # noqa: SLF001 - what it may hold is a figure
        stored = stored_bytes(stream)
    return {
        **meter.result(),
        "peak_memory_mb": round(_memory_mb("VmHWM"), 1),
        "memory_before_mb": round(before, 1),
        "held_limit_mb": round(held_limit / 2**20, 1),
        "consumer_images_per_second": round(images_per_second, 1),
        "filling": _stalls(spans[1:filling]),
        "filled": _stalls(spans[filling:]),
        "whole": _stalls(spans[1:]),
        "read_over_stored": round(stats.bytes_read / stored / meter.images, 3),
        "link_mbit_per_second": round(stats.bytes_read * 8e-6 / sum(map(sum, spans)), 1),
        "retries": stats.retries,
    }


def stored_bytes(stream: Any) -> float:
    """Mean bytes that an image takes in its shard, with its JSON and tar headers."""
    shards = stream.plan.source.rows(range(len(stream.plan.shards)))
    return float(sum(rows.places[-1, 0] + rows.places[-1, 1] for rows in shards) / stream.num_samples)


def _memory_mb(name: str) -> float:
    """A line of this process's status; the peak of `getrusage` would be its parent's."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def _stalls(spans: Sequence[tuple[float, float]]) -> dict[str, float]:
    waited, worked = (sum(span[part] for span in spans) for part in (0, 1))
    share = waited / (waited + worked) if spans else 0.0
    return {"batches": len(spans), "waited_seconds": round(waited, 3), "stall_share": round(share, 4)}


def _in_one_core(url: str, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "infra.bench.store_stream", "--consume", url, *flags]
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(["taskset", "-c", str(core), *command], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def behind(arguments: argparse.Namespace, server: s3_server.Server, images: Sequence[bytes]) -> dict[str, Any]:
    """Stream one and two datasets' worth of images through a link."""
    rate = SHARE * arguments.gbit * 1e9 / 8
    table: dict[str, Any] = {
        "link": {"latency_ms": arguments.latency_ms, "gbit": arguments.gbit},
        "consumer_takes": f"{SHARE} x bandwidth / mean stored bytes of an image",
    }
    with behind_link(server.endpoint, latency_ms=arguments.latency_ms, gbit=arguments.gbit) as endpoint:
        for copies in (arguments.copies, 2 * arguments.copies):
            url = f"{server.make_bucket('bench')}/{len(images)}x{copies}"
            if not any(open_store(url).list("dataset.json")):
                build(url, images, copies=copies)
            flags = ("--raw", "--rate", f"{rate:.0f}", "--epochs", str(arguments.epochs))
            os.environ["AWS_ENDPOINT_URL"] = endpoint
            table[f"{len(images) * copies} images"] = _in_one_core(url, *flags)
            os.environ["AWS_ENDPOINT_URL"] = server.endpoint
    return table


def against_disk(arguments: argparse.Namespace, server: s3_server.Server, images: Sequence[bytes]) -> dict[str, Any]:
    """Stream the same dataset from both places, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        local, remote = str(Path(folder) / "data"), f"{server.make_bucket('bench')}/data"
        for url in (local, remote):
            build(url, images, copies=arguments.copies)
        rounds = [(_in_one_core(local), _in_one_core(remote)) for _ in range(arguments.rounds)]
    table: dict[str, Any] = {"images": len(images) * arguments.copies}
    table["local"], table["s3"] = (
        max(runs, key=lambda item: float(item["images_per_second"])) for runs in zip(*rounds, strict=True)
    )
    table["s3_to_local"] = round(table["s3"]["images_per_second"] / table["local"]["images_per_second"], 3)
    return table


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start a server and measure."""
    images = make_corpus(package_folders(), arguments.images, seed=0)
    random.Random(0).shuffle(images)  # noqa: S311 - a benchmark's order
    with contextlib.ExitStack() as stack:
        folder = Path(arguments.work or stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(s3_server.start(folder / "s3"))
        os.environ.update(server.env)
        return (behind if arguments.gbit else against_disk)(arguments, server, images)


def main() -> int:
    """Run the benchmark, or its consumer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1400, help="images a shard")
    parser.add_argument("--copies", type=int, default=8, help="shards")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--gbit", type=float, default=0.0, help="bandwidth of the link; 0 for none")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--work", help="folder that keeps the server's data for the next run with --gbit")
    parser.add_argument("--consume", help=argparse.SUPPRESS)
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consume:
        told = consume(arguments.consume, raw=arguments.raw, bytes_per_second=arguments.rate, epochs=arguments.epochs)
        print(json.dumps(told))
    else:
        print(json.dumps(run(arguments), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
