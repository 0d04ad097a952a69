"""A training stream from S3 against the same stream from local disk, and under latency and a bandwidth limit.

    python -m infra.bench.store_stream                       # workload A: one random crop of 224 an image
    python -m infra.bench.store_stream --latency-ms 50 --gbit 1

The stream runs in a process of its own that is bound to one core with one decoding thread, from disk and from S3
alike; the server (and the proxy) get the other cores. So the server's share of the machine, which a real one would
not take, does not count against the client, while everything the client itself does does. With latency and a limit
the images stay compressed, as for decoding on the accelerator, and the consumer takes them at 0.9 of the rate that
the bandwidth allows: its stall share says how much of its time it waited. How much had
been fetched before the first batch is told, since the rest alone is streamed under the limit.
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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infra import s3_server
from infra.bench.decode import make_corpus, package_folders

BATCH = 256


def build(url: str, images: Sequence[bytes], *, copies: int) -> None:
    """A dataset of `len(images) * copies` samples in shards of some 64 MiB."""
    import pyarrow as pa

    from shards.dataset import Dataset
    from shards.schema import index_schema, rejects_schema
    from shards.tar import Sample, ShardWriter, shard_path

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


def consume(url: str, *, raw: bool, images_per_second: float) -> dict[str, Any]:
    """Stream in this process; the consumer is as fast as it can, or takes so many images a second."""
    from infra.measure import Meter
    from shards.decode import Crops
    from shards.stream import Stream

    crops = () if raw else (Crops(),)
    before = 0
    with Stream(url, crops=crops, global_batch=BATCH, num_threads=1, num_epochs=1) as stream:
        meter = Meter()
        due = 0.0
        for batch in stream:
            meter.batch(len(batch.keys))
            before = before or stream.stats().bytes_read
            if images_per_second:
                due = max(due, time.perf_counter()) + BATCH / images_per_second
                time.sleep(max(due - time.perf_counter(), 0.0))
        stats = stream.stats()
    return {
        **meter.result(),
        "stall_share": round(stats.stall_share, 4),
        "bytes_read": stats.bytes_read,
        "bytes_before_first_batch": before,
    }


def _in_one_core(url: str, *flags: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "infra.bench.store_stream", "--consume", url, *flags]
    core = min(os.sched_getaffinity(0))
    done = subprocess.run(["taskset", "-c", str(core), *command], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def _limited(endpoint: str, arguments: argparse.Namespace) -> Iterator[None]:
    """The endpoint behind a proxy with latency and a bandwidth limit; needs a checkout, for the tests' proxy."""
    from tests.faults import FaultProxy

    rate = arguments.gbit * 1e9 / 8
    with FaultProxy(endpoint, latency_seconds=arguments.latency_ms / 1000, bytes_per_second=rate) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        try:
            yield
        finally:
            os.environ["AWS_ENDPOINT_URL"] = endpoint


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Build the dataset twice, stream it from both places, and with the limits where they are asked for."""
    images = make_corpus(package_folders(), arguments.images, seed=0)
    random.Random(0).shuffle(images)  # noqa: S311 - a benchmark's order
    mean_bytes = sum(map(len, images)) / len(images)
    with tempfile.TemporaryDirectory() as folder, s3_server.start(Path(folder) / "s3") as server:
        os.environ.update(server.env)
        local, remote = str(Path(folder) / "data"), f"{server.make_bucket('bench')}/data"
        for url in (remote,) if arguments.gbit else (local, remote):
            build(url, images, copies=arguments.copies)
        table: dict[str, Any] = {"images": len(images) * arguments.copies, "mean_bytes": round(mean_bytes)}
        if arguments.gbit:
            rate = 0.9 * arguments.gbit * 1e9 / 8 / mean_bytes
            with _limited(server.endpoint, arguments):
                flags = ("--raw", "--rate", f"{rate:.1f}")
                table["limited"] = _in_one_core(remote, *flags)
            return {**table, "consumer_images_per_second": round(rate)}
        rounds = [(_in_one_core(local), _in_one_core(remote)) for _ in range(arguments.rounds)]
    table["local"], table["s3"] = (
        max(runs, key=lambda item: float(item["images_per_second"])) for runs in zip(*rounds, strict=True)
    )
    table["s3_to_local"] = round(table["s3"]["images_per_second"] / table["local"]["images_per_second"], 3)
    return table


def main() -> int:
    """Run the benchmark, or its consumer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1400, help="images a shard")
    parser.add_argument("--copies", type=int, default=8, help="shards")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--gbit", type=float, default=0.0)
    parser.add_argument("--consume", help=argparse.SUPPRESS)
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=0.0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.consume:
        print(json.dumps(consume(arguments.consume, raw=arguments.raw, images_per_second=arguments.rate)))
    else:
        print(json.dumps(run(arguments), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
