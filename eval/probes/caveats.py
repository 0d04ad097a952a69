"""What a reader of a probe's numbers must know, and what makes a probe impossible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from eval.medmnist.data import SPLITS, SplitName, Task
from eval.medmnist.tasks import MULTI_LABEL, TASKS
from shards.errors import SourceError

PUBLISHED_PX: Final = 224
"""Edge of the images on which published figures of frozen backbones rest."""
_LOOKED_AT: Final = 256
"""Training images that are compared with one another."""


def check_classes(task: Task) -> None:
    """Refuse a task that no classifier can learn.

    Raises:
        SourceError: A split is empty, or all training images have the same labels.
    """
    for name in SPLITS:
        if not len(task.split(name)):
            hint = "give an archive, or a table of labels, with images of all three splits"
            raise SourceError(f"{task.name}: there is no {name} image", hint=hint)
    if all(len(np.unique(column)) < 2 for column in task.train.labels.T):
        raise SourceError(
            f"{task.name}: all {len(task.train)} training images are of one class",
            hint="give training images of at least two classes",
        )


def caveats(task: Task, settings: Mapping[str, Any], *, protocol: str, network_px: int) -> list[str]:
    """Sentences on what limits a result.

    Args:
        task: Loaded.
        settings: What was chosen on the validation split.
        protocol: `linear`, `knn` or `paper`.
        network_px: Edge that the network saw.
    """
    found = [*_counts(task), *_missing_classes(task), *_grouped(task)]
    first = task.train.images[:_LOOKED_AT]
    if len(first) > 1 and (first == first[0]).all():
        found.append(f"{task.name}: the first {len(first)} training images are all the same image")
    if task.name in TASKS and task.size_px < PUBLISHED_PX:
        found.append(f"images of {task.size_px} px: published figures of frozen backbones are at {PUBLISHED_PX} px")
    if protocol == "paper" and network_px != PUBLISHED_PX:
        found.append(f"the network saw {network_px} px: the paper's protocol is at {PUBLISHED_PX} px")
    if settings.get("C_at_edge"):
        found.append(f"{task.name}: C = {settings['C']:g} lies at the edge of the values that were tried")
    return found


def _counts(task: Task) -> list[str]:
    info = TASKS.get(task.name)
    if info is None:
        return []
    published = (info.num_train, info.num_val, info.num_test)
    here = tuple(len(task.split(name)) for name in SPLITS)
    if here == published:
        return []
    counts = (" / ".join(f"{number:,}" for number in numbers) for numbers in (here, published))
    return ["{}: the archive has {} images (train / val / test), MedMNIST publishes {}".format(task.name, *counts)]


def _grouped(task: Task) -> list[str]:
    groups = task.test.groups
    if groups is None:
        return []
    num = len(np.unique(groups))
    images = f"{task.name}: the {len(groups)} test images are of {num} groups"
    return [f"{images}; intervals and differences resample whole groups (cluster bootstrap)"]


def _missing_classes(task: Task) -> list[str]:
    consequence: dict[SplitName, str] = {
        "train": "nothing was learnt of it",
        "val": "what is chosen on the validation split does not regard it",
        "test": "there is no AUC over all classes",
    }
    return [
        f"{task.name}: no {name} image of {', '.join(missing)}: {words}"
        for name, words in consequence.items()
        if (missing := _absent(task, name))
    ]


def _absent(task: Task, name: SplitName) -> list[str]:
    """Classes without an image, or labels that no image or every image has."""
    labels = task.split(name).labels
    if task.kind == MULTI_LABEL:
        return [title for title, column in zip(task.class_names, labels.T, strict=True) if len(np.unique(column)) < 2]
    present = set(np.unique(labels).tolist())
    return [f"class {number} ({title})" for number, title in enumerate(task.class_names) if number not in present]
