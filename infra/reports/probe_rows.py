"""Probe results as the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eval.probes.results import ProbeResult


def result_rows(place: str) -> list[dict[str, Any]]:
    """The rows of what `biovfm probe --out` wrote: a file of JSON lines, or a folder on object storage.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    from eval.probes.results import read_results

    return [result_row(result) for result in read_results(place)]


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
