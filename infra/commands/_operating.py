"""Options that commands share which run for long: figures for Prometheus, the form of their lines."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from infra.console import LogFormat
from shards.settings import whole_number

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["DEFAULTS", "Operating", "Pulse", "operated", "rank_of"]

_PULSE_SECONDS = 10.0
Figures = TypeVar("Figures")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingOptions:
    """How a command is watched.

    Attributes:
        metrics_port: Answer Prometheus at http://127.0.0.1:PORT/metrics while the command runs, each process of a node
            on the next port; BIOVFM_METRICS_ADDRESS=0.0.0.0 opens it to others. Needs `pip install 'biovfm[metrics]'`.
        metrics_file: Write the same figures to this file (*.prom) every ten seconds, for node_exporter. How the last
            ingest job ended stays in it from run to run; the port goes with its command.
        log_format: `json` prints each line of standard error as an object with time, level, message, run, rank and
            step; what is not known yet is null.
    """

    metrics_port: int | None = None
    metrics_file: Path | None = None
    log_format: LogFormat = "text"


Operating = Annotated[OperatingOptions, Parameter(name="*")]
"""As a parameter of a command: each attribute is an option of its own."""
DEFAULTS: Final = OperatingOptions()


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
    """This process's rank, as torchrun and SLURM's script give it.

    Raises:
        ConfigError: The variable holds no number.
    """
    return whole_number("RANK", 0)


@contextmanager
def operated(
    options: OperatingOptions, figures: Callable[[CollectorRegistry, Path | None], Figures]
) -> Iterator[Figures | None]:
    """Offer figures while the block lasts.

    Args:
        options: What the user asked for.
        figures: Makes the figures in a registry, before anything is offered; it is also told the file that they will
            be written to, in which those of an earlier run may lie.

    Yields:
        The figures; None where nobody asks for them.

    Raises:
        ConfigError: prometheus_client is not installed, or the port is taken.
        StoreError: The file cannot be written.
    """
    port, file = options.metrics_port, options.metrics_file
    if port is None and file is None:
        yield None
        return
    from infra.metrics.exporter import Outlet, exporting, new_registry

    outlet = Outlet(port=port, address=os.environ.get("BIOVFM_METRICS_ADDRESS", "127.0.0.1"), file=file)
    registry = new_registry()
    made = figures(registry, outlet.file)
    with exporting(registry, outlet):
        yield made
