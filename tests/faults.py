"""A proxy on loopback that breaks HTTP in chosen ways, to see what a client makes of it.

with FaultProxy(server.endpoint) as proxy:
    proxy.add(Fault.cut(after=5_000_000), times=2)
    ...a client with AWS_ENDPOINT_URL=proxy.endpoint...
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_BLOCK = 64 << 10
_PAGE = b"<html><body>Please log in.</body></html>"
_PAGE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(_PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to break one reply.

    Attributes:
        kind: `cut`, `stall`, `delay`, `truncate`, `flip`, `flip_sent`, `status`, `page`, `drop_reply`.
        after: Body bytes that pass before it happens; for `flip` and `flip_sent` the byte that is changed.
        seconds: Length of a delay.
        status: HTTP status that is answered without asking the server.
        code: S3 error code that goes with it.
        reset: Cut with RST instead of FIN.
    """

    kind: str
    after: int = 0
    seconds: float = 0.0
    status: int = 0
    code: str = ""
    reset: bool = False

    @classmethod
    def cut(cls, after: int = 0, *, reset: bool = False) -> Self:
        """Close the connection in the middle of the body."""
        return cls(kind="cut", after=after, reset=reset)

    @classmethod
    def stall(cls, after: int = 0) -> Self:
        """Send nothing more, for ever; with `after=0` not even the head."""
        return cls(kind="stall", after=after)

    @classmethod
    def delay(cls, seconds: float) -> Self:
        """Wait before the reply."""
        return cls(kind="delay", seconds=seconds)

    @classmethod
    def truncate(cls, after: int) -> Self:
        """A shorter body with a Content-Length to match: nothing in HTTP shows it."""
        return cls(kind="truncate", after=after)

    @classmethod
    def flip(cls, at: int) -> Self:
        """Change one byte of the body."""
        return cls(kind="flip", after=at)

    @classmethod
    def answer(cls, status: int, code: str) -> Self:
        """Answer with an S3 error instead of asking the server."""
        return cls(kind="status", status=status, code=code)

    @classmethod
    def flip_sent(cls, at: int) -> Self:
        """Change one byte of what the client sends; counted from the end where negative."""
        return cls(kind="flip_sent", after=at)

    @classmethod
    def page(cls) -> Self:
        """Answer with a web page and status 200, as the login page of a network does."""
        return cls(kind="page")

    @classmethod
    def drop_reply(cls) -> Self:
        """Let the server do what was asked, then close the connection without a word."""
        return cls(kind="drop_reply")


@dataclass(slots=True)
class _Rule:
    fault: Fault
    method: str
    path: str
    times: int


@dataclass(slots=True)
class _Head:
    first: str
    headers: list[tuple[str, str]]

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def encode(self, *drop: str, add: tuple[tuple[str, str], ...] = ()) -> bytes:
        kept = [(key, value) for key, value in self.headers if key.lower() not in drop]
        lines = [self.first, *(f"{key}: {value}" for key, value in (*kept, *add))]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@dataclass(slots=True)
class _Bucket:
    """A bandwidth shared by all connections: bytes are paid for before they are sent."""

    bytes_per_second: float
    free_at: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pay(self, count: int) -> None:
        with self.lock:
            self.free_at = max(self.free_at, time.monotonic()) + count / self.bytes_per_second
            wait = self.free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)


class FaultProxy:
    """A loopback HTTP proxy in front of one server.

    Attributes:
        endpoint: What the client is to be given.
        requests: `METHOD path` of every request seen, in order.
        sent: Body bytes sent to clients.
        latency_seconds: Waited before every reply.
        clock_seconds: How far the server's clock seems to be ahead: the times in its replies are shifted by it.

    Args:
        upstream: URL of the server.
        latency_seconds: See above.
        bytes_per_second: Bandwidth shared by all connections; 0 for no limit.
    """

    def __init__(self, upstream: str, *, latency_seconds: float = 0.0, bytes_per_second: float = 0.0) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[str] = []
        self.sent = 0
        self.latency_seconds = latency_seconds
        self.clock_seconds = 0.0
        self._bandwidth = _Bucket(bytes_per_second) if bytes_per_second else None
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="fault-proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def add(self, fault: Fault, *, method: str = "GET", path: str = "", times: int = 1) -> None:
        """Break the next `times` requests of `method` whose target matches the pattern `path`."""
        with self._lock:
            self._rules.append(_Rule(fault, method, path, times))

    def left(self) -> int:
        """How many of the breaks that were asked for have not happened."""
        with self._lock:
            return sum(rule.times for rule in self._rules)

    def clear(self) -> None:
        """Break nothing more."""
        with self._lock:
            self._rules.clear()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="fault-proxy-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._open.add(client)
        with client, contextlib.suppress(OSError, ConnectionError):
            reader = client.makefile("rb")
            while not self._stopped.is_set() and self._one_request(client, reader):
                pass
        with self._lock:
            self._open.discard(client)

    def _one_request(self, client: socket.socket, reader: io.BufferedReader) -> bool:
        """Relay one request; False where the connection is at its end."""
        head = _read_head(reader)
        if head is None:
            return False
        method, target, _ = head.first.split(" ", 2)
        self.requests.append(f"{method} {target}")
        if head.get("expect"):
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = reader.read(int(head.get("content-length") or 0))
        fault = self._pick(method, target)
        if self.latency_seconds:
            time.sleep(self.latency_seconds)
        if fault and fault.kind == "status":
            client.sendall(_error_reply(fault, with_body=method != "HEAD"))
            return True
        if fault and fault.kind == "page":
            client.sendall(_PAGE_HEAD + (b"" if method == "HEAD" else _PAGE))
            return True
        if fault and fault.kind == "flip_sent" and body:
            changed = bytearray(body)
            changed[fault.after] ^= 0x01
            body = bytes(changed)
        if fault and fault.kind == "stall" and not fault.after:
            self._stopped.wait()
            return False
        if fault and fault.kind == "delay":
            self._stopped.wait(fault.seconds)
        with socket.create_connection(self._upstream) as server:
            server.sendall(head.encode("connection", "expect", add=(("Connection", "close"),)) + body)
            reader = server.makefile("rb")
            if self.clock_seconds:
                reader = io.BufferedReader(io.BytesIO(_shifted(reader.read(), self.clock_seconds)))  # type: ignore[arg-type]
            return self._relay(client, reader, method, fault)

    def _relay(self, client: socket.socket, server: io.BufferedReader, method: str, fault: Fault | None) -> bool:
        head = _read_head(server)
        if head is None or (fault and fault.kind == "drop_reply"):
            return False
        known = head.get("content-length")
        length = 0 if method == "HEAD" or " 204 " in head.first or " 304 " in head.first else int(known or -1)
        drop, add = ["connection"], (() if known or length == 0 else (("Connection", "close"),))
        if fault and fault.kind == "truncate":
            length = min(length, fault.after)
            drop, add = ["connection", "content-length"], (("Content-Length", str(length)),)
        client.sendall(head.encode(*drop, add=add))
        done = 0
        while done != length:
            block = server.read1(_BLOCK if length < 0 else min(_BLOCK, length - done))
            if not block:
                return False
            if fault and fault.kind in {"cut", "stall"} and done + len(block) > fault.after:
                self._send(client, block[: fault.after - done])
                return self._end(client, fault)
            if fault and fault.kind == "flip" and done <= fault.after < done + len(block):
                changed = bytearray(block)
                changed[fault.after - done] ^= 0xFF
                block = bytes(changed)
            self._send(client, block)
            done += len(block)
        return length >= 0

    def _end(self, client: socket.socket, fault: Fault) -> bool:
        if fault.kind == "stall":
            self._stopped.wait()
        elif fault.reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def _send(self, client: socket.socket, block: bytes) -> None:
        if self._bandwidth:
            self._bandwidth.pay(len(block))
        client.sendall(block)
        self.sent += len(block)

    def _pick(self, method: str, target: str) -> Fault | None:
        with self._lock:
            for rule in self._rules:
                if rule.times and rule.method == method and re.search(rule.path, target):
                    rule.times -= 1
                    return rule.fault
        return None


def wait_for(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Poll until `condition` holds.

    Raises:
        TimeoutError: It does not hold in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)


def _read_head(reader: io.BufferedReader) -> _Head | None:
    first = reader.readline().decode("latin-1").rstrip("\r\n")
    if not first:
        return None
    headers = []
    while line := reader.readline().decode("latin-1").rstrip("\r\n"):
        name, _, value = line.partition(":")
        headers.append((name, value.strip()))
    return _Head(first, headers)


_HEADER_TIME = re.compile(rb"(?im)^((?:date|last-modified): )([^\r\n]+)")
_LISTED_TIME = re.compile(rb"(<LastModified>)([^<]+)")


def _shifted(reply: bytes, seconds: float) -> bytes:
    """A whole reply, the times in its head and in a listing shifted; its length stays."""
    head, gap, body = reply.partition(b"\r\n\r\n")
    shift = timedelta(seconds=round(seconds))

    def in_head(found: re.Match[bytes]) -> bytes:
        moment = parsedate_to_datetime(found[2].decode()) + shift
        return found[1] + format_datetime(moment, usegmt=True).encode()

    def in_listing(found: re.Match[bytes]) -> bytes:
        moment = datetime.strptime(found[2].decode()[:19], "%Y-%m-%dT%H:%M:%S") + shift
        return found[1] + moment.strftime("%Y-%m-%dT%H:%M:%S").encode() + found[2][19:]

    head = _HEADER_TIME.sub(in_head, head)
    return head + gap + (_LISTED_TIME.sub(in_listing, body) if b"/xml" in head else body)


def _error_reply(fault: Fault, *, with_body: bool) -> bytes:
    body = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>made up</Message></Error>".encode()
    lines = (f"HTTP/1.1 {fault.status} Made Up", "Content-Type: application/xml", 'ETag: "made-up"')
    head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
    return head.encode() + (body if with_body else b"")
