"""A network link on loopback: all bytes to a server and back pass it, late and no faster than its bandwidth.

    python -m infra.bench.link http://127.0.0.1:8333 --latency-ms 50 --gbit 1    # prints its URL, ends with its input

It works on connections, not on HTTP: a byte that comes in at `t` goes out half a round trip later at the earliest, and
the bytes of all connections in one direction share the bandwidth in the order of their coming. A new connection takes
one more round trip, as its handshake would. It runs in a process of its own; `behind_link` starts one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

_CHUNK_BYTES = 64 << 10
_SENT_AHEAD_SECONDS = 0.004
"""How far one connection may run ahead of its turn on the wire, so that a late wake-up leaves no gap."""
_LATE_SECONDS = 0.02
"""A wire that was free for so short a time counts as busy: it was this process that woke up late."""
_CHUNKS_IN_FLIGHT = 1024


class Wire:
    """One direction of the link.

    Args:
        delay_seconds: How long a byte travels.
        bytes_per_second: Bandwidth; 0 for no limit.
    """

    def __init__(self, delay_seconds: float, bytes_per_second: float) -> None:
        self._delay_seconds = delay_seconds
        self._bytes_per_second = bytes_per_second
        self._free_at = 0.0

    def send(self, size: int, now: float) -> tuple[float, float]:
        """When the last of `size` bytes that come in now has left, and when it is there."""
        left = now
        if self._bytes_per_second:
            left = self._free_at = max(self._free_at, now - _LATE_SECONDS) + size / self._bytes_per_second
        return left, left + self._delay_seconds


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire) -> None:
    """Bring everything from one end to the other until the sender closes."""
    loop = asyncio.get_running_loop()
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_IN_FLIGHT)
    delivery = asyncio.create_task(_deliver(under_way, writer))
    with contextlib.suppress(OSError):
        while data := await reader.read(_CHUNK_BYTES):
            left, there = wire.send(len(data), loop.time())
            await under_way.put((there, data))
            await _sleep_until(left - _SENT_AHEAD_SECONDS)
    await under_way.put((0.0, b""))
    await delivery


async def _deliver(under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
    broken = False
    while data := (item := await under_way.get())[1]:
        await _sleep_until(item[0])
        if broken:
            continue
        try:
            writer.write(data)
            await writer.drain()
        except OSError:
            broken = True
    with contextlib.suppress(OSError):
        writer.close()


async def _sleep_until(then: float) -> None:
    seconds = then - asyncio.get_running_loop().time()
    if seconds > 0:
        await asyncio.sleep(seconds)


async def serve(upstream: str, *, latency_seconds: float, bytes_per_second: float) -> None:
    """Accept connections for `upstream` until standard input ends; prints the link's URL."""
    up, down = (Wire(latency_seconds / 2, bytes_per_second) for _ in range(2))
    host, port = urlsplit(upstream).hostname, urlsplit(upstream).port

    async def connect(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        await asyncio.sleep(latency_seconds)
        try:
            server, to_server = await asyncio.open_connection(host, port)
        except OSError:
            to_client.close()
            return
        with contextlib.suppress(asyncio.CancelledError):  # the link is taken down
            await asyncio.gather(carry(client, to_server, up), carry(server, to_client, down))

    listener = await asyncio.start_server(connect, "127.0.0.1", 0)
    sys.stdout.write(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


@contextlib.contextmanager
def behind_link(upstream: str, *, latency_ms: float, gbit: float) -> Iterator[str]:
    """The URL of `upstream` behind a link.

    Args:
        upstream: URL of a server.
        latency_ms: Round trip.
        gbit: Bandwidth in 10^9 bit/s each way; 0 for no limit.
    """
    command = [sys.executable, "-m", "infra.bench.link", upstream]
    limits = ["--latency-ms", str(latency_ms), "--gbit", str(gbit)]
    with subprocess.Popen([*command, *limits], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdin is not None
        assert link.stdout is not None
        try:
            yield link.stdout.readline().strip()
        finally:
            link.stdin.close()


def main() -> int:
    """Run a link."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream", help="URL of the server")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="round trip")
    parser.add_argument("--gbit", type=float, default=0.0, help="bandwidth each way; 0 for no limit")
    arguments = parser.parse_args()
    limits = {"latency_seconds": arguments.latency_ms / 1000, "bytes_per_second": arguments.gbit * 1e9 / 8}
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.upstream, **limits))
    return 0


if __name__ == "__main__":
    sys.exit(main())
