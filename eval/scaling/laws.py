"""Scaling analysis: power laws of the test AUC over model size, data size and mix, and what their slopes go with.

BioVFM fits `AUC = c · x^slope` by least squares of ln(AUC in percent) on ln(x); with AUC near its ceiling of 100 the
slope then shrinks because there is no room, not because the model learns less. So a second form stands beside it,
`100 - AUC = c · x^slope`, where a negative slope is the share of the remaining error that each factor of x removes.
Slopes carry t-intervals; with two points there is no interval, and the report says so.

Runs at one x (seeds, repeated configurations) are no independent points: what a size has of its own, all of its runs
share. So the AUCs at one x are averaged before the logarithm, of a task and of the mean over tasks alike, and the
degrees of freedom count places on the axis, not runs. Fitted on runs, a 95 % interval of four sizes with three seeds
each covers far less than it says (`python -m infra.bench.coverage slopes`). A place where every run has reached the
form's bound (an AUC of 100 has no logarithm of what is missing) is left out of that law and counted.

BioVFM's model size is encoder plus MAE decoder (31.2 M for ViT-T), for both algorithms; the encoder alone (5.5 M) is
fitted as well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from eval.scaling.measurements import MEAN, Measurement, mean_over_tasks
from eval.scoring.metrics import Floats

Form = Literal["power", "saturating"]
FORMS: Final[tuple[Form, ...]] = ("power", "saturating")
AXES: Final = ("params_total_m", "params_encoder_m", "num_images", "data_fraction", "num_modalities")
"""What a power law may run over; those that vary in the results are fitted."""

CONFIDENCE: Final = 0.95
_MODEL_AXES: Final = ("params_total_m", "params_encoder_m")
_DATA_AXES: Final = ("num_images", "data_fraction")


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
        num_points: Places on the axis that were fitted.
        num_runs: Runs behind them.
    """

    slope: float
    coefficient: float
    lower: float
    upper: float
    p_value: float
    r_squared: float
    num_points: int
    num_runs: int

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
        num_left_out: Places where every run has reached the form's bound, which has no logarithm.
    """

    task: str
    algorithm: str
    axis: str
    form: Form
    fixed: str
    law: PowerLaw
    num_left_out: int = 0

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
    """Least squares of ln y on ln x, on the mean y of each x.

    Args:
        x: (N,) positive; runs at one x have equal values.
        y: (N,) positive.
        confidence: Of the slope's t-interval; as many degrees of freedom as different x, less two.

    Raises:
        ValueError: Fewer than two different x, or a value that has no logarithm.
    """
    from scipy.stats import t as student

    xs, ys = (np.asarray(values, dtype=np.float64) for values in (x, y))
    if not (np.isfinite(xs).all() and np.isfinite(ys).all() and (xs > 0).all() and (ys > 0).all()):
        raise ValueError("a power law needs positive, finite values")
    num_runs = len(xs)
    xs, ys = means_per_place(xs, ys)
    if len(xs) < 2:
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
        num_runs=num_runs,
    )


def means_per_place(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Different x and the mean y at each of them; in the order given where no x occurs twice."""
    places, of_run = np.unique(x, return_inverse=True)
    if len(places) == len(x):
        return x, y
    return places, np.bincount(of_run, weights=y) / np.bincount(of_run)


def fit_slopes(measurements: Sequence[Measurement]) -> list[Slope]:
    """Every law that the measurements allow: each task and the mean, each algorithm, each axis that varies, both forms.

    Points of one law differ in nothing but their axis (and the seed).
    """
    with_mean = [*measurements, *mean_over_tasks(measurements)]
    return [
        slope
        for axis in AXES
        for (task, algorithm, fixed), points in _groups(with_mean, axis).items()
        for form in FORMS
        if (slope := _slope(points, axis, form, fixed=fixed)) is not None
    ]


def _groups(measurements: Iterable[Measurement], axis: str) -> dict[tuple[str, str, str], list[Measurement]]:
    """Points that differ in nothing but their place on `axis`."""
    groups: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    for point in measurements:
        if math.isfinite(point.along(axis)):
            groups[point.task, point.algorithm, fixed_settings(point, axis)].append(point)
    return groups


def fixed_settings(point: Measurement, axis: str) -> str:
    """What else a law over `axis` holds fixed at this point, as `Slope.fixed` says it."""
    kept = {"model": point.model, "data_fraction": f"{point.data_fraction:g}", "modality": point.modality}
    if axis in _MODEL_AXES:
        kept.pop("model")
    if axis in _DATA_AXES:
        kept.pop("data_fraction")
    if axis == "num_modalities":
        kept.pop("modality")
    return ", ".join(f"{name}={value}" for name, value in kept.items())


def _slope(points: Sequence[Measurement], axis: str, form: Form, *, fixed: str) -> Slope | None:
    """The law through points of one task and algorithm; None where fewer than two places can be fitted."""
    placed = [(point.along(axis), point.auc_percent) for point in points if point.along(axis) > 0]
    x, auc = (np.array(values) for values in zip(*placed, strict=True)) if placed else (np.empty(0), np.empty(0))
    y = auc if form == "power" else 100 - auc
    places, means = means_per_place(x, y)
    fitted = np.isin(x, places[means > 0])
    if len(np.unique(x[fitted])) < 2:
        return None
    return Slope(
        task=points[0].task,
        algorithm=points[0].algorithm,
        axis=axis,
        form=form,
        fixed=fixed,
        law=_fit_means(x[fitted], y[fitted]),
        num_left_out=int((means <= 0).sum()),
    )


def _fit_means(x: Floats, y: Floats) -> PowerLaw:
    """`fit_power_law`, where single runs may have no logarithm as long as the mean of their place has one."""
    places, means = means_per_place(x, y)
    return replace(fit_power_law(places, means), num_runs=len(x))


def correlate(slopes: Sequence[Slope], factors: Sequence[dict[str, Any]]) -> list[Correlation]:
    """Pearson and Spearman correlations of the tasks' slopes with the tasks' properties.

    Args:
        slopes: From `fit_slopes`; the mean over tasks is left out.
        factors: One dictionary a task, with `task` and the properties (`eval.scaling.task_factors.task_factors`).
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
