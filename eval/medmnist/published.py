"""Published linear probes of frozen backbones on the twelve tasks, to be read beside one's own.

Another protocol lies behind each of them (another head, other augmentation, other seeds), so they say what is usual,
not what is better. `published_probes.csv` holds test AUCs in percent, with model, protocol and source.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from eval.medmnist.tasks import TASKS

MARK: Final = "published, other protocol"
"""What stands beside every such figure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedProbe:
    """One backbone of the literature.

    Attributes:
        model: Its name.
        protocol: How it was probed.
        source: Where it was published.
        auc: MedMNIST's flag → test AUC, 0 to 1.
    """

    model: str
    protocol: str
    source: str
    auc: dict[str, float]


def published_probes() -> list[PublishedProbe]:
    """All rows of the table."""
    text = files("eval.medmnist").joinpath("published_probes.csv").read_text(encoding="utf-8")
    return [
        PublishedProbe(
            model=row["model"],
            protocol=row["protocol"],
            source=row["source"],
            auc={task: float(row[task.removesuffix("mnist")]) / 100 for task in TASKS},
        )
        for row in csv.DictReader(text.splitlines())
    ]


def published_rows(tasks: Sequence[str]) -> list[list[str]]:
    """Rows of a table: model, AUC of each task, their mean, protocol, source.

    Args:
        tasks: Flags; those that are not MedMNIST's are left out, and nothing is returned where none is left.
    """
    known = [task for task in tasks if task in TASKS]
    if not known:
        return []
    return [
        [
            item.model,
            *(f"{item.auc[task]:.3f}" for task in known),
            f"{sum(item.auc[task] for task in known) / len(known):.3f}",
            f"{MARK}: {item.protocol}",
            item.source,
        ]
        for item in published_probes()
    ]


def published_columns(tasks: Sequence[str]) -> list[str]:
    """Heads of `published_rows`."""
    titles = [TASKS[task].title for task in tasks if task in TASKS]
    return ["published AUC", *titles, "mean", "protocol", "source"]
