"""What a client of a store meets when network and server misbehave, fault by fault, for obstore and for fsspec (s3fs).

    python -m infra.bench.store_faults                     # with short time limits; the longest row takes 200 s
    python -m infra.bench.store_faults --pause-seconds 5   # half a minute
    python -m infra.bench.store_faults --product-limits    # with the limits as they are shipped; some ten minutes

Every fault must end in one of two ways: the exact bytes, or an error within the stated time that names store, key and
offset. Anything else is marked WRONG and makes the command fail. It starts a server of its own (extra s3-server) and
breaks its replies with the tests' fault proxy, so it needs a checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import google_crc32c

from infra import s3_server
from shards.errors import AlreadyExistsError, ShardError, StoreError
from shards.read.locations import Location
from shards.read.remote import open_reader
from shards.store import MIB, StoreSettings, open_store
from shards.store.remote import RemoteStore
from tests.faults import Fault, FaultProxy

DRIVERS = ("obstore", "fsspec")
DATA = random.Random(0).randbytes(3 * MIB)  # noqa: S311 - made-up content
EVER = 1_000_000
OFFSET = 1_000_000
SHORT = {"connect_seconds": 1.0, "read_seconds": 1.0, "request_seconds": 20.0, "budget_seconds": 4.0}
SHORT_BACKOFF = {"backoff_seconds": 0.02}
_GRACE_SECONDS = 2.0

Read = Callable[[RemoteStore], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fault and how it must end.

    Attributes:
        name: What is broken.
        faults: What the proxy does, how often, to which method.
        act: What the client tries; the bytes that it must get.
        ends: `bytes`, or `error` where no number of attempts can help.
        says: A word that the error must hold.
    """

    name: str
    faults: Sequence[tuple[Fault, int, str]]
    act: Read
    ends: Literal["bytes", "error"] = "bytes"
    says: str = ""


def read_range(store: RemoteStore) -> bytes:
    """A range."""
    return DATA[:OFFSET] + store.read_range("big", OFFSET, len(DATA) - OFFSET)


def read_whole(store: RemoteStore) -> bytes:
    """The object, checked against its entity tag."""
    return store.read("big")


def read_sample(store: RemoteStore) -> bytes:
    """The object as a sample of a shard, checked against the index's CRC-32C."""
    place = Location("key", "big", 0, len(DATA), google_crc32c.value(DATA))
    reader = open_reader(store)
    (found,) = reader.read([place])
    reader.close()
    if isinstance(found, ShardError):
        raise found
    return bytes(found)


def put_once(store: RemoteStore) -> bytes:
    """Create an object, and read it back."""
    name = f"new-{time.monotonic_ns()}"
    store.put_if_absent(name, DATA)
    return store.read(name)


def _times(fault: Fault, times: int, method: str = "GET") -> Sequence[tuple[Fault, int, str]]:
    return [(fault, times, method)]


_EXPIRED = Fault.answer(400, "ExpiredToken")
CASES = (
    Case(name="cut twice in the body", faults=_times(Fault.cut(after=700_000), 2), act=read_range),
    Case(name="reset twice in the body", faults=_times(Fault.cut(after=700_000, reset=True), 2), act=read_range),
    Case(name="stall in the body", faults=_times(Fault.stall(after=300_000), 1), act=read_range),
    Case(name="stall before the head", faults=_times(Fault.stall(), 1), act=read_range),
    Case(name="stall for ever", faults=_times(Fault.stall(), EVER), act=read_range, ends="error"),
    Case(name="stall in the body for ever", faults=_times(Fault.stall(after=1000), EVER), act=read_range, ends="error"),
    Case(name="500 three times", faults=_times(Fault.answer(500, "InternalError"), 3), act=read_range),
    Case(name="503 SlowDown three times", faults=_times(Fault.answer(503, "SlowDown"), 3), act=read_range),
    Case(
        name="503 SlowDown for ever",
        faults=_times(Fault.answer(503, "SlowDown"), EVER),
        act=read_range,
        ends="error",
        says="SlowDown",
    ),
    Case(name="truncated body, twice", faults=_times(Fault.truncate(400_000), 2), act=read_range),
    Case(name="truncated body for ever", faults=_times(Fault.truncate(1000), EVER), act=read_range, ends="error"),
    Case(name="flipped byte, object read whole", faults=_times(Fault.flip(100_000), 1), act=read_whole),
    Case(name="flipped byte in a sample", faults=_times(Fault.flip(100_000), 1), act=read_sample),
    Case(name="credentials expired, renewed", faults=_times(_EXPIRED, 1), act=read_range),
    Case(
        name="credentials expired for good",
        faults=[(_EXPIRED, EVER, "GET"), (_EXPIRED, EVER, "HEAD")],
        act=read_range,
        ends="error",
        says="credentials",
    ),
    Case(
        name="bucket gone",
        faults=_times(Fault.answer(404, "NoSuchBucket"), EVER),
        act=read_range,
        ends="error",
        says="bucket",
    ),
    Case(name="reply to a conditional put lost", faults=_times(Fault.drop_reply(), 1, "PUT"), act=put_once),
)


def try_case(case: Case, store: RemoteStore, proxy: FaultProxy, *, limit_seconds: float) -> dict[str, Any]:
    """Break the replies, call the store, and judge how it ended."""
    for fault, times, method in case.faults:
        proxy.add(fault, times=times, method=method, path="big|new-")
    before, begin = len(proxy.requests), time.monotonic()
    try:
        got, text = case.act(store), ""
    except (StoreError, AlreadyExistsError, ShardError) as error:
        got, text = None, str(error)
    seconds = time.monotonic() - begin
    proxy.clear()
    where = f"{store.url}/big at offset {OFFSET}"
    if got is not None:
        good = case.ends == "bytes" and got == DATA
        ended = "exact bytes" if got == DATA else "other bytes"
    else:
        good = case.ends == "error" and where in text and case.says in text
        ended = text
    return {
        "fault": case.name,
        "good": good and seconds < limit_seconds + _GRACE_SECONDS,
        "seconds": round(seconds, 1),
        "within": round(limit_seconds, 1),
        "requests": len(proxy.requests) - before,
        "ended": ended,
    }


def pause(store: RemoteStore, seconds: float) -> dict[str, Any]:
    """A consumer that takes a little, does something else for long, and goes on."""
    begin = time.monotonic()
    with store.open_stream("big") as stream:
        first = stream.read(1000)
        time.sleep(seconds)
        good = first + stream.read() == DATA
    return {
        "fault": f"consumer pauses for {seconds:g} s",
        "good": good,
        "seconds": round(time.monotonic() - begin, 1),
        "within": "-",
        "requests": "-",
        "ended": "exact bytes" if good else "other bytes",
    }


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All rows; the pauses go on beside the others."""
    limits = {} if arguments.product_limits else {**SHORT, **SHORT_BACKOFF}
    with tempfile.TemporaryDirectory() as folder, s3_server.start(folder) as server:
        os.environ.update(server.env)
        url = server.make_bucket("faults") + "/d"
        open_store(url).put_if_absent("big", DATA)
        opened = {
            driver: cast(
                "RemoteStore",
                open_store(url, StoreSettings(driver=driver, **limits)),  # type: ignore[arg-type]
            )
            for driver in DRIVERS
        }
        paused: list[dict[str, Any]] = []
        waiting = [_start_pause(driver, url, arguments.pause_seconds, limits, paused) for driver in DRIVERS]
        with FaultProxy(server.endpoint) as proxy:
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
            for driver, store in opened.items():
                settings = store.settings
                for case in CASES:
                    limit = settings.budget_seconds + settings.read_seconds
                    yield {"client": driver, **try_case(case, store, proxy, limit_seconds=limit)}
        for thread in waiting:
            thread.join()
        yield from paused


def _start_pause(
    driver: str, url: str, seconds: float, limits: dict[str, float], rows: list[dict[str, Any]]
) -> threading.Thread:
    store = cast("RemoteStore", open_store(url, StoreSettings(driver=driver, range_bytes=MIB, **limits)))  # type: ignore[arg-type]
    store.read_range("big", 0, 1)

    def run() -> None:
        rows.append({"client": driver, **pause(store, seconds)})

    thread = threading.Thread(target=run, name=f"pause-{driver}")
    thread.start()
    return thread


def main() -> int:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pause-seconds", type=float, default=200.0)
    parser.add_argument("--product-limits", action="store_true", help="the limits as shipped instead of short ones")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    shipped = StoreSettings()
    if not arguments.json:
        print(
            f"As shipped a call fails within {shipped.budget_seconds + shipped.read_seconds:g} s (no attempt begins "
            f"after {shipped.budget_seconds:g} s, a stall ends one after {shipped.read_seconds:g} s, a connection "
            f"after {shipped.connect_seconds:g} s, one request after {shipped.request_seconds:g} s)."
        )
        if not arguments.product_limits:
            print("Here: " + ", ".join(f"{name} {value:g}" for name, value in SHORT.items()) + ".")
        print("\n| fault | client | ends in | after s | within s | requests |\n|---|---|---|---|---|---|")
    rows = []
    for row in measure(arguments):
        rows.append(row)
        if not arguments.json:
            ended = ("" if row["good"] else "WRONG: ") + row["ended"].partition(" — ")[0]
            cells = (row["fault"], row["client"], ended, row["seconds"], row["within"], row["requests"])
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    return 0 if all(row["good"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
