"""Test AUCs of pretraining runs: one row of a table each, and the mean over tasks."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from eval.medmnist.tasks import TASKS
from eval.scaling.parameters import encoder_params_m
from shards.errors import ConfigError

MEAN: Final = "mean"
"""The name that stands for all tasks."""
_BY_TASK: Final = ("auc_percent", "lower_percent", "upper_percent")

_SIZE_COLUMNS: Final = ("notebook_x_axis_M", "params_total_m")
_ENCODER_COLUMNS: Final = ("encoder_only_M_incl_fixed_pos_embed", "params_encoder_m")
NOT_STATED: Final = "not stated"
"""Algorithm and model of a published mean that comes without them."""

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
    "auc_percent": ("auc_percent", "test_auc_percent", "mean_auc_percent"),
    "pretraining_data": ("pretraining_data",),
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
        pretraining_data: Name of the pretraining set, where a table gives that instead of its make-up.
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
    pretraining_data: str = ""

    @property
    def mix(self) -> str:
        """What a figure over pretraining sets calls this one."""
        return self.pretraining_data or ("all modalities" if self.modality == "all" else self.modality)

    @property
    def num_modalities(self) -> float:
        """Tags of the mix; `nan` for `all`."""
        return math.nan if self.modality == "all" else float(len(self.modality.split("+")))

    def along(self, axis: str) -> float:
        """Where the measurement lies on an axis."""
        return float(getattr(self, axis))


def mean_over_tasks(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The mean AUC of each run that has all tasks; none where there is but one task.

    A task that a run has several times counts by its mean. Measurements that are means already stay out.
    """
    single = [point for point in measurements if point.task != MEAN]
    tasks = {point.task for point in single}
    runs: dict[tuple[Any, ...], dict[str, list[Measurement]]] = defaultdict(lambda: defaultdict(list))
    for point in single:
        key = (point.algorithm, point.model, point.data_fraction, point.modality, point.seed, str(point.num_images))
        runs[key][point.task].append(point)
    whole = [run for run in runs.values() if set(run) == tasks and len(tasks) > 1]
    return [_mean(list(run.values())) for run in whole]


def _mean(tasks: Sequence[Sequence[Measurement]]) -> Measurement:
    first = {key: value for key, value in asdict(tasks[0][0]).items() if key not in {"task", *_BY_TASK}}
    auc = np.mean([np.mean([point.auc_percent for point in repeats]) for repeats in tasks])
    return Measurement(task=MEAN, auc_percent=float(auc), **first)


def read_tables(paths: Sequence[Path]) -> list[Measurement]:
    """Measurements of several CSV files; tables of model sizes among them fill in parameter counts.

    Args:
        paths: Tables of results (`read_measurements`), and of sizes: `size` or `model`, `notebook_x_axis_M` or
            `params_total_m`, and no AUC.

    Raises:
        ConfigError: A file cannot be read, or none of them holds results.
    """
    rows = {path: _read_rows(path) for path in paths}
    sizes = {name: size for path in paths if _is_sizes(rows[path]) for name, size in _sizes(rows[path], path).items()}
    results = [point for path in paths if not _is_sizes(rows[path]) for point in _measurements(rows[path], path)]
    if not results:
        raise ConfigError(f"{', '.join(map(str, paths))}: no results", hint="biovfm sweep GRID.yaml writes a table")
    return [_with_size(point, sizes.get(point.model.lower())) for point in results]


def read_measurements(path: Path) -> list[Measurement]:
    """Measurements of a CSV file with a header.

    Columns: `task`, `algorithm`, `model`, and `auc` (0 to 1) or `auc_percent`; optional `params_total_m`,
    `params_encoder_m`, `num_images`, `data_fraction`, `modality`, `seed`, `pretraining_data`. `dataset`, `size`,
    `notebook_params_M` and `test_auc_percent` are read as task, model, params_total_m and auc_percent. A table with
    `mean_auc_percent` holds means over the tasks; its algorithm and model may be missing.

    Raises:
        ConfigError: The file is missing, lacks a column, or a value is no number.
    """
    return _measurements(_read_rows(path), path)


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise ConfigError(f"there is no {path}", hint="biovfm sweep GRID.yaml writes one")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(lines)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is no CSV table: {error}", hint="give the results.csv of a sweep") from error
    if not rows:
        raise ConfigError(f"{path} holds no rows", hint="give the results.csv of a sweep")
    return rows


def _columns(row: Mapping[str, str]) -> dict[str, str | None]:
    return {ours: next((name for name in names if name in row), None) for ours, names in _ALIASES.items()}


def _measurements(rows: Sequence[dict[str, str]], path: Path) -> list[Measurement]:
    columns = _columns(rows[0])
    of_means = "mean_auc_percent" in rows[0]
    missing = [name for name in ("task", "algorithm", "model") if columns[name] is None and not of_means]
    if columns["auc"] is None and columns["auc_percent"] is None:
        missing.append("auc")
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}", hint=f"it has {', '.join(rows[0])}")
    return [_measurement(row, columns, f"{path}:{number}") for number, row in enumerate(rows, start=2)]


def _is_sizes(rows: Sequence[Mapping[str, str]]) -> bool:
    columns = _columns(rows[0])
    named = columns["model"] and any(name in rows[0] for name in _SIZE_COLUMNS)
    return bool(named) and columns["auc"] is None and columns["auc_percent"] is None


def _sizes(rows: Sequence[Mapping[str, str]], path: Path) -> dict[str, tuple[float, float]]:
    """Size in lower case → trained parameters and those of the encoder, in millions."""
    model = _columns(rows[0])["model"] or ""

    def number(row: Mapping[str, str], names: Sequence[str]) -> float:
        text = next((row[name] for name in names if row.get(name)), "nan")
        try:
            return float(text)
        except ValueError as error:
            raise ConfigError(f"{path}: {text!r} is no number of parameters", hint="correct the table") from error

    return {row[model].lower(): (number(row, _SIZE_COLUMNS), number(row, _ENCODER_COLUMNS)) for row in rows}


def _with_size(point: Measurement, size: tuple[float, float] | None) -> Measurement:
    if size is None:
        return point
    known = (point.params_total_m, point.params_encoder_m)
    total, encoder = (old if math.isfinite(old) else new for old, new in zip(known, size, strict=True))
    return replace(point, params_total_m=total, params_encoder_m=encoder)


def _measurement(row: Mapping[str, str], columns: dict[str, str | None], where: str) -> Measurement:
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
        task=(flag if flag in TASKS else text("task")) or MEAN,
        algorithm=text("algorithm", NOT_STATED),
        model=text("model", NOT_STATED),
        auc_percent=auc_percent,
        params_total_m=number("params_total_m"),
        params_encoder_m=encoder if math.isfinite(encoder) else encoder_params_m(text("model")),
        num_images=number("num_images"),
        data_fraction=number("data_fraction", default=1.0),
        modality=text("modality", "all"),
        seed=number("seed", int, 0),
        lower_percent=100 * number("auc_lower"),
        upper_percent=100 * number("auc_upper"),
        pretraining_data=text("pretraining_data"),
    )
