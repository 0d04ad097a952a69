"""Plain web servers as stores: read-only, with and without ranges; and processes that end in time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra.s3_server import Server
from shards.errors import NotFoundError, StoreError
from shards.store import StoreSettings, open_store
from tests.faults import Fault, FaultProxy

DATA = os.urandom(300_000)
QUICK = {"budget_seconds": 0.3, "read_seconds": 2.0, "range_bytes": 100_000}


class Handler(BaseHTTPRequestHandler):
    """One file, `/data/big`; ranges unless the server is a simple one."""

    protocol_version = "HTTP/1.1"
    ranges = True

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        if self.path != "/data/big":
            self.send_error(404)
            return
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "") if self.ranges else None
        start, stop = (int(wanted[1]), min(int(wanted[2]) + 1, len(DATA))) if wanted else (0, len(DATA))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Last-Modified", "Mon, 02 Nov 2026 10:00:00 GMT")
        self.send_header("ETag", 'W/"weak"')
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(DATA)}")
        self.end_headers()
        if body:
            self.wfile.write(DATA[start:stop])

    def log_message(self, *arguments: object) -> None:
        pass


class Simple(Handler):
    """Knows no ranges, as Python's own file server."""

    ranges = False


def serve(handler: type[Handler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/data"
        server.shutdown()


@pytest.fixture
def web() -> Iterator[str]:
    yield from serve(Handler)


@pytest.fixture
def simple_web() -> Iterator[str]:
    yield from serve(Simple)


@pytest.mark.process
@pytest.mark.parametrize("driver", ["obstore", "fsspec"])
def test_reading_from_a_web_server(web: str, driver: str) -> None:
    store = open_store(web, StoreSettings(driver=driver, **QUICK))  # type: ignore[arg-type]
    assert store.stat("big").size == len(DATA)
    assert store.read("big") == DATA
    assert store.read_range("big", 1000, 250_000) == DATA[1000:251_000]
    assert store.open_stream("big", 7).read() == DATA[7:]
    with pytest.raises(NotFoundError):
        store.read("nothing")


@pytest.mark.process
def test_a_web_server_is_not_written_to(web: str) -> None:
    store = open_store(web, StoreSettings(**QUICK))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="new"):
        store.put_if_absent("new", b"x")


@pytest.mark.process
def test_a_server_without_ranges_is_refused_not_believed(simple_web: str) -> None:
    store = open_store(simple_web, StoreSettings(**QUICK))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="big at offset 1000"):
        store.read_range("big", 1000, 10)


ENDING = """
import sys, threading
from shards.store import open_store
store = open_store(sys.argv[1])
for _ in range(3):
    threading.Thread(target=lambda: store.read_range("a", 0, 4)).start()
pending = store.open_stream("a")
threading.Event().wait(0.5)
print("main is done", flush=True)
"""


@pytest.mark.s3
def test_a_process_ends_though_its_reads_are_stuck(
    bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(bucket).put_if_absent("a", b"abcd")
    monkeypatch.setenv("BIOVFM_STORE_READ_SECONDS", "1")
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        for fault in (Fault.stall(), Fault.answer(503, "SlowDown")):
            proxy.clear()
            proxy.add(fault, path="/a", times=1_000_000)
            done = subprocess.run(
                [sys.executable, "-c", ENDING, bucket],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            assert "main is done" in done.stdout
