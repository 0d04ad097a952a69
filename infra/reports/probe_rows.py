"""Probe results as the rows of a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.probes.results import ProbeResult


def result_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file that `biovfm probe` wrote.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    from eval.probes.results import read_results

    return [result_row(result) for result in read_results(path)]


def result_row(result: ProbeResult) -> dict[str, Any]:
    """`model, task, auc, low, high, acc` of one result."""
    bounds = result.bounds("auc")
    return {
        "model": result.backbone,
        "task": result.task,
        "auc": result.metrics["auc"].value,
        "low": bounds.lower,
        "high": bounds.upper,
        "acc": result.metrics["acc"].value,
    }
