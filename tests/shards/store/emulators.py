"""Object storage of other makers on this machine, started by the tests: Azurite (`az://`), fake-gcs-server (`gs://`)."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hashlib
import hmac
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own account, the same everywhere and written in its manual: no secret."""


@contextlib.contextmanager
def azurite() -> Iterator[str]:
    """The endpoint of a running Azurite; skips the test where it is not installed."""
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not on the path: npm install -g azurite")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [program, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"]
    server = subprocess.Popen([*words, "--blobPort", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}/{ACCOUNT}"
    finally:
        server.terminate()
        server.wait(20)


@contextlib.contextmanager
def fake_gcs() -> Iterator[str]:
    """The endpoint of a running fake-gcs-server; skips the test where it, or gcsfs, is not installed."""
    program = shutil.which("fake-gcs-server")
    if program is None:
        pytest.skip("fake-gcs-server is not on the path")
    pytest.importorskip("gcsfs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    words = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    server = subprocess.Popen([*words, "-external-url", endpoint], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield endpoint
    finally:
        server.terminate()
        server.wait(20)


def make_gcs_bucket(endpoint: str, name: str) -> None:
    """Make a bucket."""
    headers = {"Content-Type": "application/json"}
    request = Request(f"{endpoint}/storage/v1/b", json.dumps({"name": name}).encode(), headers, method="POST")
    with urlopen(request, timeout=20) as reply:
        assert reply.status == 200


def _wait_for(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def make_container(endpoint: str, name: str) -> None:
    """Make a container, by one signed request."""
    version, date = "2021-08-06", email.utils.formatdate(usegmt=True)
    text = (
        "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:{version}\n/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    )
    signature = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(signature).decode()}",
        "Content-Length": "0",
    }
    request = Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)
    with urlopen(request, timeout=20) as reply:
        assert reply.status == 201
