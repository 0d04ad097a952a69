"""Scaling analysis: power laws of the test AUC over model size, data size and mix, and what their slopes go with.

BioVFM fits `AUC = c · x^slope` by least squares of ln(AUC in percent) on ln(x); with AUC near its ceiling of 100 the
slope then shrinks because there is no room, not because the model learns less. So a second form stands beside it,
`100 - AUC = c · x^slope`, where a negative slope is the share of the remaining error that each factor of x removes.
Slopes carry t-intervals; with two points there is no interval, and the report says so.

BioVFM's model size is encoder plus MAE decoder (31.2 M for ViT-T), for both algorithms; the encoder alone (5.5 M) is
fitted as well.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from eval.metrics import Floats
from eval.parameters import encoder_params_m
from eval.tasks import TASKS
from shards.errors import ConfigError

Form = Literal["power", "saturating"]
FORMS: Final[tuple[Form, ...]] = ("power", "saturating")
AXES: Final = ("params_total_m", "params_encoder_m", "num_images", "data_fraction", "num_modalities")
"""What a power law may run over; those that vary in the results are fitted."""

MEAN: Final = "mean"
CONFIDENCE: Final = 0.95
_MODEL_AXES: Final = ("params_total_m", "params_encoder_m")
_DATA_AXES: Final = ("num_images", "data_fraction")

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

    @property
    def num_modalities(self) -> float:
        """Tags of the mix; `nan` for `all`."""
        return math.nan if self.modality == "all" else float(len(self.modality.split("+")))

    def along(self, axis: str) -> float:
        """Where the measurement lies on an axis."""
        return float(getattr(self, axis))


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """`y = coefficient · x^slope`, by least squares in logarithms.

    Attributes:
        slope: Exponent.
        coefficient: Value at x = 1.
        lower: Lower bound of the slope's interval; `nan` with two points.
        upper: Upper bound.
        p_value: Of a slope of zero.
        r_squared: In logarithms.
        num_points: Fitted points.
    """

    slope: float
    coefficient: float
    lower: float
    upper: float
    p_value: float
    r_squared: float
    num_points: int

    def __call__(self, x: Floats) -> Floats:
        """The fitted curve."""
        curve: Floats = self.coefficient * x**self.slope
        return curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """One fitted law and what it was fitted to.

    Attributes:
        task: MedMNIST's flag, or `mean`.
        algorithm: Of all its points.
        axis: One of `AXES`.
        form: `power` fits the AUC in percent, `saturating` fits 100 minus it.
        fixed: What else is the same in all its points, e.g. `data_fraction=1, modality=all`.
        law: The fit.
    """

    task: str
    algorithm: str
    axis: str
    form: Form
    fixed: str
    law: PowerLaw

    def row(self) -> dict[str, Any]:
        """As one row of a table."""
        record = asdict(self)
        return {**{key: value for key, value in record.items() if key != "law"}, **record["law"]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """How the slopes of the tasks go with a property of the tasks.

    Attributes:
        factor: num_classes, num_samples, gzip_ratio or davies_bouldin.
        algorithm: Whose slopes.
        axis: Of the slopes.
        form: Of the slopes.
        pearson: Linear correlation.
        pearson_p: Of none.
        spearman: Rank correlation.
        spearman_p: Of none.
        num_tasks: Tasks with both.
    """

    factor: str
    algorithm: str
    axis: str
    form: Form
    pearson: float
    pearson_p: float
    spearman: float
    spearman_p: float
    num_tasks: int

    def row(self) -> dict[str, Any]:
        """As one row of a table."""
        return asdict(self)


def fit_power_law(x: npt.ArrayLike, y: npt.ArrayLike, *, confidence: float = CONFIDENCE) -> PowerLaw:
    """Least squares of ln y on ln x.

    Args:
        x: (N,) positive.
        y: (N,) positive.
        confidence: Of the slope's t-interval, N - 2 degrees of freedom.

    Raises:
        ValueError: Fewer than two different x, or a value that has no logarithm.
    """
    from scipy.stats import t as student

    xs, ys = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if not (np.isfinite(xs).all() and np.isfinite(ys).all() and (xs > 0).all() and (ys > 0).all()):
        raise ValueError("a power law needs positive, finite values")
    if len(np.unique(xs)) < 2:
        raise ValueError("a power law needs two different x")
    log_x, log_y = np.log(xs), np.log(ys)
    centred = log_x - log_x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ log_y) / spread
    intercept = float(log_y.mean() - slope * log_x.mean())
    residual = log_y - intercept - slope * log_x
    freedom = len(xs) - 2
    total = float(((log_y - log_y.mean()) ** 2).sum())
    lower = upper = p_value = math.nan
    if freedom > 0:
        error = math.sqrt(float(residual @ residual) / freedom / spread)
        width = float(student.ppf(0.5 + confidence / 2, freedom)) * error
        lower, upper = slope - width, slope + width
        p_value = float(2 * student.sf(abs(slope) / error, freedom)) if error > 0 else 0.0
    return PowerLaw(
        slope=slope,
        coefficient=math.exp(intercept),
        lower=lower,
        upper=upper,
        p_value=p_value,
        r_squared=1 - float(residual @ residual) / total if total > 0 else 1.0,
        num_points=len(xs),
    )


def fit_slopes(measurements: Sequence[Measurement]) -> list[Slope]:
    """Every law that the measurements allow: each task and the mean, each algorithm, each axis that varies, both forms.

    Points of one law differ in nothing but their axis (and the seed).
    """
    with_mean = [*measurements, *mean_over_tasks(measurements)]
    return [
        Slope(task=task, algorithm=algorithm, axis=axis, form=form, fixed=fixed, law=law)
        for axis in AXES
        for (task, algorithm, fixed), points in _groups(with_mean, axis).items()
        for form in FORMS
        if (law := _fit(points, axis, form)) is not None
    ]


def _groups(measurements: Iterable[Measurement], axis: str) -> dict[tuple[str, str, str], list[Measurement]]:
    """Points that differ in nothing but their place on `axis`."""
    groups: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for point in measurements:
        if math.isfinite(point.along(axis)):
            groups[point.task, point.algorithm, _fixed(point, axis)].append(point)
    return groups


def _fixed(point: Measurement, axis: str) -> str:
    kept = {"model": point.model, "data_fraction": f"{point.data_fraction:g}", "modality": point.modality}
    if axis in _MODEL_AXES:
        kept.pop("model")
    if axis in _DATA_AXES:
        kept.pop("data_fraction")
    if axis == "num_modalities":
        kept.pop("modality")
    return ", ".join(f"{name}={value}" for name, value in kept.items())


def _fit(points: Sequence[Measurement], axis: str, form: Form) -> PowerLaw | None:
    x = [point.along(axis) for point in points]
    y = [point.auc_percent if form == "power" else 100 - point.auc_percent for point in points]
    if len(set(x)) < 2 or min(x) <= 0 or min(y) <= 0:
        return None
    return fit_power_law(x, y)


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
    first = {key: value for key, value in asdict(points[0]).items() if key not in {"task", "auc_percent"}}
    return Measurement(task=MEAN, auc_percent=float(np.mean([point.auc_percent for point in points])), **first)


def correlate(slopes: Sequence[Slope], factors: Sequence[dict[str, Any]]) -> list[Correlation]:
    """Pearson and Spearman correlations of the tasks' slopes with the tasks' properties.

    Args:
        slopes: From `fit_slopes`; the mean over tasks is left out.
        factors: One dictionary a task, with `task` and the properties (`eval.complexity.task_factors`).
    """
    names = [name for name in (factors[0] if factors else {}) if name != "task"]
    by_task = {row["task"]: row for row in factors}
    groups: dict[tuple[str, str, Form, str], dict[str, float]] = defaultdict(dict)
    for slope in slopes:
        if slope.task != MEAN:
            groups[slope.algorithm, slope.axis, slope.form, slope.fixed][slope.task] = slope.law.slope
    found = []
    for (algorithm, axis, form, _), values in groups.items():
        for name in names:
            pairs = [
                (float(by_task[task][name]), slope)
                for task, slope in values.items()
                if task in by_task and math.isfinite(float(by_task[task][name]))
            ]
            if len(pairs) >= 3 and len({x for x, _ in pairs}) > 1:
                found.append(_correlation(name, algorithm, axis, form, pairs))
    return found


def _correlation(
    factor: str, algorithm: str, axis: str, form: Form, pairs: Sequence[tuple[float, float]]
) -> Correlation:
    from scipy.stats import pearsonr, spearmanr

    x, y = zip(*pairs, strict=True)
    pearson, spearman = pearsonr(x, y), spearmanr(x, y)
    return Correlation(
        factor=factor,
        algorithm=algorithm,
        axis=axis,
        form=form,
        pearson=float(pearson.statistic),
        pearson_p=float(pearson.pvalue),
        spearman=float(spearman.statistic),
        spearman_p=float(spearman.pvalue),
        num_tasks=len(pairs),
    )


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
    )
