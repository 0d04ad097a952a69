"""Test AUCs of pretraining runs: one row of a table each, and the mean over tasks."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from eval.medmnist.tasks import TASKS
from eval.scaling.parameters import encoder_params_m
from shards.errors import ConfigError

MEAN: Final = "mean"
"""The name that stands for all tasks."""
_BY_TASK: Final = ("auc_percent", "lower_percent", "upper_percent")

_ALIASES: Final[dict[str, tuple[str, ...]]] = {
    "task": ("task", "dataset"),
    "algorithm": ("algorithm", "method"),
    "model": ("model", "size"),
    "params_total_m": ("params_total_m", "notebook_params_M"),
    "params_encoder_m": ("params_encoder_m",),
    "num_images": ("num_images",),
    "data_fraction": ("data_fraction",),
    "modality": ("modality",),
    "seed": ("seed",),
    "auc": ("auc",),
    "auc_lower": ("auc_lower",),
    "auc_upper": ("auc_upper",),
    "auc_percent": ("auc_percent", "test_auc_percent"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One test AUC.

    Attributes:
        task: MedMNIST's flag, or another name.
        algorithm: DINOv2, MAE, BiomedCLIP …
        model: Tiny, Small, Base, Large …
        auc_percent: 0 to 100.
        params_total_m: Millions of trained weights (encoder and decoder); `nan` where unknown.
        params_encoder_m: Millions of weights of the encoder; `nan` where unknown.
        num_images: Of the pretraining set; `nan` where unknown.
        data_fraction: Of the pretraining set.
        modality: Tags of the pretraining set, joined by `+`; `all` without a choice.
        seed: Of the run.
        lower_percent: Lower bound of the AUC's bootstrap interval, over the test images alone; `nan` where unknown.
        upper_percent: Upper bound.
    """

    task: str
    algorithm: str
    model: str
    auc_percent: float
    params_total_m: float = math.nan
    params_encoder_m: float = math.nan
    num_images: float = math.nan
    data_fraction: float = 1.0
    modality: str = "all"
    seed: int = 0
    lower_percent: float = math.nan
    upper_percent: float = math.nan

    @property
    def num_modalities(self) -> float:
        """Tags of the mix; `nan` for `all`."""
        return math.nan if self.modality == "all" else float(len(self.modality.split("+")))

    def along(self, axis: str) -> float:
        """Where the measurement lies on an axis."""
        return float(getattr(self, axis))


def mean_over_tasks(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The mean AUC of each configuration that has all tasks; none where there is but one task."""
    tasks = {point.task for point in measurements}
    groups: dict[tuple[Any, ...], dict[str, Measurement]] = defaultdict(dict)
    for point in measurements:
        key = (point.algorithm, point.model, point.data_fraction, point.modality, point.seed, str(point.num_images))
        groups[key][point.task] = point
    whole = [group for group in groups.values() if set(group) == tasks and len(tasks) > 1]
    return [_mean(list(group.values())) for group in whole]


def _mean(points: Sequence[Measurement]) -> Measurement:
    first = {key: value for key, value in asdict(points[0]).items() if key not in {"task", *_BY_TASK}}
    return Measurement(task=MEAN, auc_percent=float(np.mean([point.auc_percent for point in points])), **first)


def read_measurements(path: Path) -> list[Measurement]:
    """Measurements of a CSV file with a header.

    Columns: `task`, `algorithm`, `model`, and `auc` (0 to 1) or `auc_percent`; optional `params_total_m`,
    `params_encoder_m`, `num_images`, `data_fraction`, `modality`, `seed`. `dataset`, `size`, `notebook_params_M` and
    `test_auc_percent` are read as task, model, params_total_m and auc_percent.

    Raises:
        ConfigError: The file is missing, lacks a column, or a value is no number.
    """
    if not path.is_file():
        raise ConfigError(f"there is no {path}", hint="biovfm sweep GRID.yaml writes one")
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if not rows:
        raise ConfigError(f"{path} holds no rows")
    columns = {ours: next((name for name in names if name in rows[0]), None) for ours, names in _ALIASES.items()}
    missing = [name for name in ("task", "algorithm", "model") if columns[name] is None]
    if columns["auc"] is None and columns["auc_percent"] is None:
        missing.append("auc")
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}", hint=f"it has {', '.join(rows[0])}")
    return [_measurement(row, columns, f"{path}:{number}") for number, row in enumerate(rows, start=2)]


def _measurement(row: dict[str, str], columns: dict[str, str | None], where: str) -> Measurement:
    def text(name: str, default: str = "") -> str:
        column = columns[name]
        return (row[column] or default) if column else default

    def number(name: str, read: Callable[[str], Any] = float, default: Any = math.nan) -> Any:
        try:
            return read(text(name)) if text(name) else default
        except ValueError as error:
            raise ConfigError(f"{where}: {name} is no number: {text(name)!r}") from error

    percent = number("auc_percent")
    auc_percent = percent if math.isfinite(percent) else 100 * number("auc")
    if not 0 <= auc_percent <= 100:
        raise ConfigError(f"{where}: an AUC of {auc_percent} % cannot be", hint="auc is 0 to 1, auc_percent 0 to 100")
    flag = text("task").lower()
    encoder = number("params_encoder_m")
    return Measurement(
        task=flag if flag in TASKS else text("task"),
        algorithm=text("algorithm"),
        model=text("model"),
        auc_percent=auc_percent,
        params_total_m=number("params_total_m"),
        params_encoder_m=encoder if math.isfinite(encoder) else encoder_params_m(text("model")),
        num_images=number("num_images"),
        data_fraction=number("data_fraction", default=1.0),
        modality=text("modality", "all"),
        seed=number("seed", int, 0),
        lower_percent=100 * number("auc_lower"),
        upper_percent=100 * number("auc_upper"),
    )
