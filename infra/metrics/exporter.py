"""Offers a registry to Prometheus: on a port, or as a text file for node_exporter's textfile collector."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import ConfigError, StoreError
from shards.settings import whole_number

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["Outlet", "exporting", "new_registry"]

FILE_SECONDS = 10.0
"""Time between two writings of the file."""
_LAST_PORT = 65535


class Outlet:
    """Where figures go.

    Args:
        port: Port of an HTTP server that answers at `/metrics`; each process of a node takes the next one, by
            LOCAL_RANK. None for no server.
        address: Address that it listens on.
        file: A file that is written anew every `FILE_SECONDS`; the processes of a node write files beside each other,
            whose names carry their ranks. None for no file.

    Raises:
        ConfigError: There is no such port, the file does not end in `.prom`, or LOCAL_RANK holds no number.
    """

    def __init__(self, *, port: int | None = None, address: str = "127.0.0.1", file: Path | None = None) -> None:
        rank = whole_number("LOCAL_RANK", 0)
        self.port = None if port is None else port + rank
        if self.port is not None and not (port and 0 < self.port <= _LAST_PORT):
            raise ConfigError(f"there is no --metrics-port {self.port}", hint=f"give one of 1 to {_LAST_PORT}")
        self.address = address
        self.file = file.with_stem(f"{file.stem}-rank{rank}") if file is not None and rank else file
        if self.file is not None and self.file.suffix != ".prom":
            raise ConfigError(f"{self.file} does not end in .prom", hint="node_exporter reads *.prom alone")

    @property
    def is_open(self) -> bool:
        """Whether figures go anywhere."""
        return self.port is not None or self.file is not None


def new_registry() -> CollectorRegistry:
    """A registry with the release and what the process uses: CPU seconds, memory, open files.

    Raises:
        ConfigError: prometheus_client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, Info, ProcessCollector
    except ImportError as error:
        raise ConfigError("prometheus_client is not installed", hint="pip install 'biovfm[metrics]'") from error

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    Info("biovfm_build", "Release of biovfm.", registry=registry).info({"version": metadata.version("biovfm")})
    return registry


@contextmanager
def exporting(registry: CollectorRegistry, outlet: Outlet) -> Iterator[None]:
    """Offer a registry for as long as the block lasts; the file stays with the last figures.

    Raises:
        ConfigError: The port is taken.
        StoreError: The file cannot be written.
    """
    from prometheus_client import start_http_server

    server = None
    if outlet.port is not None:
        try:
            server, _ = start_http_server(outlet.port, addr=outlet.address, registry=registry)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen on {outlet.address}:{outlet.port}: {getattr(error, 'strerror', None) or error}",
                hint=f"give another --metrics-port, up to {_LAST_PORT}",
            ) from error
    over = threading.Event()
    writer = threading.Thread(target=_keep_writing, args=(registry, outlet.file, over), name="metrics", daemon=True)
    try:
        if outlet.file is not None:
            _write(registry, outlet.file)
            writer.start()
        yield
    finally:
        over.set()
        if server is not None:
            server.shutdown()
            server.server_close()
        if writer.ident is not None:
            writer.join()


class _OwnFigures:
    """A registry without the `process_…` figures: node_exporter has its own, and refuses others of the same names."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._registry.collect() if not metric.name.startswith("process_"))


def _write(registry: CollectorRegistry, path: Path) -> None:
    from prometheus_client import write_to_textfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), _OwnFigures(registry))
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}", hint="check --metrics-file and the free space"
        ) from error


def _keep_writing(registry: CollectorRegistry, path: Path, over: threading.Event) -> None:
    """Until the end, and once more then; a disk that is full for a while costs figures, not the run."""
    while True:
        ended = over.wait(FILE_SECONDS)
        with suppress(StoreError):
            _write(registry, path)
        if ended:
            return
