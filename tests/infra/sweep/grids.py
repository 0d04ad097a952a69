"""A small sweep for tests: two runs of a network for tests, on one CPU each."""

from __future__ import annotations

import csv
from pathlib import Path

import yaml

from tests.eval.builders import write_archive
from tests.shards.builders import small_dataset
from tests.train.recipes import mae_recipe


def small_grid(folder: Path) -> Path:
    """Its file; dataset, recipe and evaluation archive lie beside it."""
    small_dataset(str(folder / "dataset"))
    (folder / "mae.yaml").write_text(mae_recipe().to_yaml())
    write_archive(folder / "medmnist", "breastmnist")
    document = {
        "dataset": str(folder / "dataset"),
        "recipes": [str(folder / "mae.yaml")],
        "seeds": [0, 1],
        "set": {"run.steps": 2},
        "probe": {"tasks": "breast", "data": str(folder / "medmnist"), "image_size": 32, "resamples": 20},
        "slurm": {"gpus": 0, "cpus": 1, "time": "00:10:00"},
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def seeds_in(results: Path) -> set[str]:
    """Seeds of the runs in a table of results."""
    with results.open(newline="") as lines:
        return {row["seed"] for row in csv.DictReader(lines)}
