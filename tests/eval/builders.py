"""Small MedMNIST-like archives for the tests: synthetic images whose brightness and pattern tell the class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from eval.medmnist.data import archive_name
from eval.medmnist.tasks import MULTI_LABEL, TASKS


def write_archive(
    folder: Path, name: str, *, size: int = 28, counts: tuple[int, int, int] = (60, 24, 36), compressed: bool = True
) -> Path:
    """A synthetic archive of a real task's kind and channels."""
    info = TASKS[name]
    rng = np.random.default_rng(7)
    patterns = rng.normal(size=(info.num_classes, size, size))
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        if info.kind == MULTI_LABEL:
            labels = rng.integers(0, 2, (count, info.num_classes))
            signal = np.tensordot(labels, patterns, axes=1) / info.num_classes**0.5
        else:
            labels = np.arange(count)[:, None] % info.num_classes
            signal = patterns[labels[:, 0]]
        images = 128 + 25 * signal + 40 * rng.normal(size=(count, size, size))
        images = np.clip(images, 0, 255).astype(np.uint8)
        arrays[f"{split}_images"] = np.repeat(images[..., None], 3, axis=3) if info.channels == 3 else images
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    path = folder / archive_name(name, size)
    folder.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def real_folder(name: str = "breastmnist") -> Path:
    """Where real MedMNIST archives lie, or skip the test."""
    places = [os.environ.get("BIOVFM_MEDMNIST_ROOT"), str(Path.home() / ".medmnist")]
    places.append(str(Path(__file__).parents[3] / "shared" / "data"))
    for place in places:
        if place and (Path(place) / f"{name}.npz").is_file():
            return Path(place)
    pytest.skip(f"no real {name}.npz: set BIOVFM_MEDMNIST_ROOT")
