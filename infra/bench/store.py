"""Random ranges from S3: the store's own path against s3fs, on the same plan against the same local server.

    python -m infra.bench.store                  # starts its own server; needs the extra s3-server
    python -m infra.bench.store --json

Each client runs in a process of its own and is timed without imports and after one warm-up range; wall and CPU time
(user and system, all threads of the client) are medians over interleaved rounds. Bytes are compared between clients.
The plan: for each object a sorted, random set of ranges of 4 to 36 KiB, as a stream of a selected modality reads them;
several objects at a time. The server shares the machine, so wall time on few cores is bound by it; CPU is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from infra import s3_server
from shards.store import StoreSettings, fsspec_options, open_store

MIB = 1 << 20
Plan = list[tuple[str, list[tuple[int, int]]]]
CLIENTS = ("store", "store-fsspec", "s3fs")


def make_plan(*, objects: int, object_bytes: int, ranges: int, seed: int) -> Plan:
    """Sorted random ranges for each object."""
    rng = random.Random(seed)  # noqa: S311 - a benchmark's plan
    plan = []
    for number in range(objects):
        lengths = [rng.randrange(4 << 10, 36 << 10) for _ in range(ranges // objects)]
        plan.append((f"{number:03d}.bin", sorted((rng.randrange(object_bytes - n), n) for n in lengths)))
    return plan


def run_client(name: str, url: str, plan: Plan, threads: int) -> dict[str, Any]:
    """One client, once, in this process."""
    read = _reader(name, url)
    read(plan[0][0], [(0, 1000)])
    before, begin = _cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda item: read(*item), plan))
    wall, cpu = time.perf_counter() - begin, _cpu_seconds() - before
    check = 0
    for group in parts:
        for part in group:
            check = zlib.crc32(part, check)
    return {"client": name, "wall_seconds": wall, "cpu_seconds": cpu, "check": check}


def _reader(name: str, url: str) -> Callable[[str, list[tuple[int, int]]], Sequence[bytes]]:
    if name != "s3fs":
        driver = "fsspec" if name == "store-fsspec" else "auto"
        return open_store(url, StoreSettings(driver=driver, concurrency=16)).read_ranges
    import s3fs

    system = s3fs.S3FileSystem(**fsspec_options(url))

    def read(path: str, ranges: list[tuple[int, int]]) -> Sequence[bytes]:
        starts, ends = [start for start, _ in ranges], [start + length for start, length in ranges]
        names = [f"{url.removeprefix('s3://')}/{path}"] * len(ranges)
        parts: list[bytes] = system.cat_ranges(names, starts, ends, on_error="raise", batch_size=16)
        return parts

    return read


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


@contextmanager
def served(objects: int, object_bytes: int) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with random objects; its URL and the environment of its clients."""
    with tempfile.TemporaryDirectory() as folder, s3_server.start(folder) as server:
        url = server.make_bucket("bench")
        os.environ.update(server.env)
        store = open_store(url)
        for number in range(objects):
            store.put_if_absent(f"{number:03d}.bin", random.Random(number).randbytes(object_bytes))  # noqa: S311
        yield url, server.env


def _measure(arguments: argparse.Namespace, url: str, environment: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {client: [] for client in CLIENTS}
    for _ in range(arguments.rounds):
        for client in CLIENTS:
            command = [sys.executable, "-m", "infra.bench.store", "--client", client, "--url", url, *_sizes(arguments)]
            done = subprocess.run(
                command, check=True, capture_output=True, text=True, env={**os.environ, **environment}
            )
            results[client].append(json.loads(done.stdout))
    return results


def _sizes(arguments: argparse.Namespace) -> list[str]:
    names = ("objects", "object_mib", "ranges", "threads", "seed")
    return [text for name in names for text in (f"--{name.replace('_', '-')}", str(getattr(arguments, name)))]


def summarise(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians a client, and the ratios of s3fs to the store."""
    checks = {run["check"] for runs in results.values() for run in runs}
    if len(checks) != 1:
        raise SystemExit("the clients read different bytes")
    table: dict[str, Any] = {
        client: {key: round(statistics.median(run[key] for run in runs), 3) for key in ("wall_seconds", "cpu_seconds")}
        for client, runs in results.items()
    }
    for key in ("wall_seconds", "cpu_seconds"):
        table[f"s3fs_to_store_{key.partition('_')[0]}"] = round(table["s3fs"][key] / table["store"][key], 2)
    return table


def main() -> int:
    """Run the benchmark, or one client of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=8)
    parser.add_argument("--object-mib", type=int, default=64)
    parser.add_argument("--ranges", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=4, help="objects read at a time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--client", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size = arguments.object_mib * MIB
    plan = make_plan(objects=arguments.objects, object_bytes=size, ranges=arguments.ranges, seed=arguments.seed)
    if arguments.client:
        print(json.dumps(run_client(arguments.client, arguments.url, plan, arguments.threads)))
        return 0
    with served(arguments.objects, size) as (url, environment):
        table = summarise(_measure(arguments, url, environment))
    print(json.dumps(table) if arguments.json else json.dumps(table, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
