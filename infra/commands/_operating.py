"""Options that commands share which run for long: figures for Prometheus, the form of their lines."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from infra.console import LogFormat, log_as

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Pulse", "operated", "rank_of"]

_PULSE_SECONDS = 10.0


class Pulse:
    """Says every ten seconds that something is due, the first time at once."""

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        """Whether ten seconds have passed since it was last due."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _PULSE_SECONDS
        return True


def rank_of() -> int:
    """This process's rank, as torchrun and SLURM's script give it."""
    return int(os.environ.get("RANK", "0"))


@contextmanager
def operated(
    log_format: LogFormat, metrics_port: int | None, metrics_file: Path | None, *, run: str, rank: int
) -> Iterator[CollectorRegistry | None]:
    """Log as asked for, and offer figures while the block lasts.

    Args:
        log_format: Of the lines on standard error.
        metrics_port: Port that Prometheus scrapes; None for none.
        metrics_file: File for node_exporter; None for none.
        run: What the lines call this run.
        rank: Of this process.

    Yields:
        The registry to fill; None where nobody asks for figures.

    Raises:
        ConfigError: prometheus_client is not installed, or the port is taken.
        StoreError: The file cannot be written.
    """
    log_as(log_format, run=run, rank=rank)
    if metrics_port is None and metrics_file is None:
        yield None
        return
    from infra.metrics.exporter import Outlet, exporting, new_registry

    outlet = Outlet(port=metrics_port, address=os.environ.get("BIOVFM_METRICS_ADDRESS", "127.0.0.1"), file=metrics_file)
    registry = new_registry()
    with exporting(registry, outlet):
        yield registry
