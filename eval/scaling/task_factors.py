"""Properties of a task that may explain its scaling slope: how many classes and samples, how plain, how mixed.

BioVFM's repository has no code for compressibility and class separation, so these are our definitions: gzip at level 9
over the raw bytes of an image, the median over images; and the Davies-Bouldin index (Davies and Bouldin, 1979) of the
pixels, the mean over labels (with it or without it) in multi-label tasks. A high index means mixed classes.
"""

from __future__ import annotations

import gzip
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from eval.medmnist.data import Task
from eval.medmnist.tasks import MULTI_LABEL, TASKS
from eval.scoring.metrics import Labels

MAX_IMAGES: Final = 2000
"""Images a task that compressibility and separation look at, drawn with a fixed seed."""


def gzip_ratio(image: npt.NDArray[np.uint8]) -> float:
    """Compressed bytes over raw bytes of one image; lower is plainer."""
    raw = np.ascontiguousarray(image).tobytes()
    return len(gzip.compress(raw, compresslevel=9, mtime=0)) / len(raw)


def davies_bouldin(features: npt.NDArray[Any], labels: npt.NDArray[Any]) -> float:
    """Mean over classes of the worst (spread + spread) / distance to another class.

    Args:
        features: (N, D).
        labels: (N,) any values; at least two of them.

    Raises:
        ValueError: One class only.
    """
    values = np.unique(labels)
    if len(values) < 2:
        raise ValueError("a Davies-Bouldin index needs two classes")
    points = np.asarray(features, dtype=np.float64).reshape(len(features), -1)
    groups = [points[labels == value] for value in values]
    centres = np.stack([group.mean(axis=0) for group in groups])
    spread = np.array([np.linalg.norm(g - c, axis=1).mean() for g, c in zip(groups, centres, strict=True)])
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (spread[:, None] + spread[None]) / distance
    np.fill_diagonal(ratio, -np.inf)
    return float(ratio.max(axis=1).mean())


def known_factors(name: str) -> dict[str, Any]:
    """What is known of a task without its images: classes and samples of all splits."""
    info = TASKS[name]
    return {"task": name, "num_classes": info.num_classes, "num_samples": info.num_samples}


def task_factors(task: Task, *, max_images: int = MAX_IMAGES) -> dict[str, Any]:
    """All properties of a loaded task.

    Args:
        task: From `eval.medmnist.data.load_task`; its training split is looked at.
        max_images: As many are drawn.

    Returns:
        `task`, `num_classes`, `num_samples`, `gzip_ratio`, `davies_bouldin`.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(task.train))[:max_images])
    images, labels = np.asarray(task.train.images[rows]), task.train.labels[rows]
    return {
        **known_factors(task.name),
        "gzip_ratio": float(np.median([gzip_ratio(image) for image in images])),
        "davies_bouldin": _separation(images, labels, multi_label=task.kind == MULTI_LABEL),
    }


def _separation(images: npt.NDArray[np.uint8], labels: Labels, *, multi_label: bool) -> float:
    columns = [column for column in labels.T if len(np.unique(column)) > 1]
    if not columns:
        return float("nan")
    chosen = columns if multi_label else columns[:1]
    return float(np.mean([davies_bouldin(images, column) for column in chosen]))
