"""Probe results as the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def result_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file that `biovfm probe` wrote.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    from eval.probes.results import read_results

    return [result_row(result.record()) for result in read_results(path)]


def result_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """`model, task, auc, low, high, acc` of one result."""
    auc, acc = record["metrics"]["auc"], record["metrics"]["acc"]
    bounds = record.get("auc_bounds") or auc
    return {
        "model": record["backbone"],
        "task": record["task"],
        "auc": auc["value"],
        "low": bounds["lower"],
        "high": bounds["upper"],
        "acc": acc["value"],
    }
