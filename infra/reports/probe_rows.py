"""Probe results as the rows of a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.errors import ConfigError


def read_results(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file that `biovfm probe` wrote.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [result_row(json.loads(line)) for line in lines if line]
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} holds no probe results: {error!r}", hint="give what `biovfm probe` wrote") from error


def result_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """`model, task, auc, low, high, acc` of one result."""
    auc, acc = record["metrics"]["auc"], record["metrics"]["acc"]
    return {
        "model": record["backbone"],
        "task": record["task"],
        "auc": auc["value"],
        "low": auc["lower"],
        "high": auc["upper"],
        "acc": acc["value"],
    }
