"""What the soak works on: raw sources that grow, a recipe, labels. All of it follows from the seed."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from shards.dataset.dataset import Dataset
from tests.ingest.material import encoded, photo
from tests.train.recipes import mae_recipe

__all__ = ["SOURCES", "files_of", "num_files", "write_labels", "write_recipe"]

SOURCES: Mapping[str, Sequence[str]] = {
    "alpha": ("--modality", "US", "--group", "folder"),
    "beta": ("--modality", "Fundus", "--group", "file"),
}
"""Source → options of its ingest. The files of beta are zip archives, some of whose images alpha has too."""
_DAMAGED_EVERY, _TWICE_EVERY, _FOLDER_FILES, _IN_ARCHIVE = 9, 7, 4, 4
_SPLITS = ("train", "train", "val", "test")


def files_of(source: str, numbers: range, *, seed: int) -> dict[str, bytes]:
    """The raw files of a source that carry these numbers: images, some of them twice, and damaged ones."""
    if source == "beta":
        return {f"{number:04d}.zip": _zip_of(_images(f"b{number}", number * _IN_ARCHIVE, seed)) for number in numbers}
    return {
        name: data
        for number in numbers
        for name, data in _image(f"patient-{number // _FOLDER_FILES:03d}/{number:04d}", number, seed)
    }


def num_files(source: str, count: int) -> int:
    """How many files a job lists in so many raw files: the members of each archive."""
    return count * (_IN_ARCHIVE if source == "beta" else 1)


def _images(stem: str, first: int, seed: int) -> dict[str, bytes]:
    own = {f"{stem}-{place}.png": encoded(photo(seed + 50_000 + first + place)) for place in range(_IN_ARCHIVE - 1)}
    return {**own, f"{stem}-shared.png": encoded(photo(seed + first))}


def _zip_of(files: Mapping[str, bytes]) -> bytes:
    """A zip archive whose bytes do not depend on the time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _image(stem: str, number: int, seed: int) -> list[tuple[str, bytes]]:
    if number % _DAMAGED_EVERY == _DAMAGED_EVERY - 1:
        return [(f"{stem}.jpg", b"\xff\xd8\xff no image")]
    same = number - 1 if number % _TWICE_EVERY == _TWICE_EVERY - 1 else number
    return [(f"{stem}.png", encoded(photo(seed + same)))]


def write_recipe(path: Path, *, mirror: str | None = None) -> Path:
    """A recipe of a few small steps with a checkpoint every third, copied to a store where one is given."""
    checkpoint = {"every": 3, **({"url": mirror} if mirror else {})}
    path.write_text(mae_recipe(run={"steps": 12}, checkpoint=checkpoint).to_yaml(), encoding="utf-8")
    return path


def write_labels(path: Path, dataset: Dataset) -> Path:
    """A label for every sample, and a part for every group, so that no part knows another one's patients."""
    sql = "SELECT key, dense_rank() OVER (ORDER BY source, group_id) AS number FROM samples ORDER BY number, key"
    labelled = Counter[str]()
    with path.open("w", encoding="utf-8", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["key", "label", "split"])
        for row in dataset.query(sql).to_pylist():
            split = _SPLITS[row["number"] % len(_SPLITS)]
            out.writerow([row["key"], labelled[split] % 2, split])
            labelled[split] += 1
    return path
