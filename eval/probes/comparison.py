"""Several models side by side: tables of their metrics, and paired differences on the same test images.

Seeds of one model are repetitions of it, not models: their mean and deviation are shown, and models are compared by
the means over their seeds. The interval of such a difference holds two sources of chance, the test images and the
seeds, whose half-widths are squared and added: the images by the paired bootstrap, the seeds by Student's t over the
differences seed by seed where both models have the same seeds, else over both deviations (Welch).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from eval.medmnist.tasks import TASKS, Kind
from eval.probes.results import ProbeResult
from eval.scoring.bootstrap import CONFIDENCE, NUM_RESAMPLES, Difference, boot_stats, difference
from eval.scoring.delong import largest_alpha, paired_auc
from eval.scoring.metrics import METRICS, Floats, Labels
from shards.errors import ConfigError

MEAN: Final = "mean"
"""Name of the row that averages all tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model against the first, on one task or on the mean over tasks.

    Attributes:
        task: Name of the task, or `mean`.
        metric: One of `eval.scoring.metrics.METRICS`.
        backbone: The model.
        baseline: The first model.
        difference: Model minus baseline, paired over images.
        num_seeds: Of the model and of the baseline.
        method: Of the interval: `delong` (binary tasks), `bootstrap`, or `bootstrap+seeds`.
    """

    task: str
    metric: str
    backbone: str
    baseline: str
    difference: Difference
    num_seeds: tuple[int, int] = (1, 1)
    method: str = "bootstrap"

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def compare(
    results: Sequence[ProbeResult], *, metric: str = "auc", num_resamples: int = NUM_RESAMPLES
) -> list[Comparison]:
    """Every later model against the first, task by task and on the mean of the tasks that both have.

    Resample i draws the same images for both models. On the mean over tasks the tasks are resampled independently
    of one another, since they share no images.

    Args:
        results: Of several models; each has its `scores_path`.
        metric: One of `eval.scoring.metrics.METRICS`.
        num_resamples: B.

    Raises:
        ConfigError: Two results of one task were scored on different images.
    """
    table = _Table(results, metric, num_resamples)
    baseline, *others = table.names
    return [found for name in others for found in table.against(name, baseline)]


class _Table:
    """Results by model and task, with their resampled metrics, each computed once."""

    def __init__(self, results: Sequence[ProbeResult], metric: str, num_resamples: int) -> None:
        self.metric = metric
        self.names = model_names(results)
        self._num_resamples = num_resamples
        self._runs: dict[tuple[str, str], list[ProbeResult]] = {}
        for result in results:
            self._runs.setdefault((_model(result), result.task), []).append(result)
        self._resampled: dict[tuple[str, str], Floats] = {}

    def against(self, name: str, baseline: str) -> list[Comparison]:
        tasks = [task for model, task in self._runs if model == baseline and (name, task) in self._runs]
        found = [self._on_task(name, baseline, task) for task in tasks]
        return [*found, self._on_mean(name, baseline, tasks)] if len(tasks) > 1 else found

    def _on_task(self, name: str, baseline: str, task: str) -> Comparison:
        mine, theirs = self._runs[name, task], self._runs[baseline, task]
        _check_same_images(mine[0], theirs[0])
        if len(mine) == len(theirs) == 1 and self.metric == "auc":
            (labels, first), (_, second) = load_scores(mine[0]), load_scores(theirs[0])
            alone = load_groups(mine[0]) is None
            if alone and (exact := paired_auc(labels, (first, second), _kind(mine[0]))):
                return self._comparison(task, name, baseline, exact, "delong")
        return self._by_images_and_seeds(task, name, baseline, [task])

    def _on_mean(self, name: str, baseline: str, tasks: Sequence[str]) -> Comparison:
        return self._by_images_and_seeds(MEAN, name, baseline, tasks)

    def _by_images_and_seeds(self, title: str, name: str, baseline: str, tasks: Sequence[str]) -> Comparison:
        drawn = [self._stats(name, task) - self._stats(baseline, task) for task in tasks]
        images = drawn[0] if len(drawn) == 1 else _mean_over_tasks(drawn)
        mine, theirs = self._by_seed(name, tasks), self._by_seed(baseline, tasks)
        value = float(np.mean(list(mine.values())) - np.mean(list(theirs.values())))
        if len(mine) == len(theirs) == 1:
            found = difference(value, images, confidence=CONFIDENCE)
            grouped = any(load_groups(run) is not None for task in tasks for run in self._runs[name, task])
            return self._comparison(title, name, baseline, found, "cluster bootstrap" if grouped else "bootstrap")
        found = difference_with_seeds(value, images, mine, theirs)
        return self._comparison(title, name, baseline, found, "bootstrap+seeds")

    def _by_seed(self, name: str, tasks: Sequence[str]) -> dict[int, float]:
        """Seed → mean over tasks, of the seeds that have all of them."""
        values = [{run.seed: run.metrics[self.metric].value for run in self._runs[name, task]} for task in tasks]
        seeds = [seed for seed in values[0] if all(seed in of_task for of_task in values)]
        return {seed: float(np.mean([of_task[seed] for of_task in values])) for seed in seeds}

    def _stats(self, name: str, task: str) -> Floats:
        """(B,) resampled metric, the mean over seeds."""
        if (name, task) not in self._resampled:
            parts = [_resampled(run, self.metric, self._num_resamples) for run in self._runs[name, task]]
            self._resampled[name, task] = np.mean(parts, axis=0)
        return self._resampled[name, task]

    def _comparison(self, task: str, name: str, baseline: str, found: Difference, method: str) -> Comparison:
        first, second = (max(len(runs) for (n, _), runs in self._runs.items() if n == who) for who in (name, baseline))
        return Comparison(
            task=task,
            metric=self.metric,
            backbone=name,
            baseline=baseline,
            difference=found,
            num_seeds=(first, second),
            method=method,
        )


def difference_with_seeds(
    value: float, images: Floats, mine: Mapping[int, float], theirs: Mapping[int, float]
) -> Difference:
    """The difference of two means over seeds, with both sources of chance.

    Args:
        value: The difference.
        images: (B,) its values over resamples of the test images.
        mine: Seed → value of the model.
        theirs: Seed → value of the baseline.
    """
    from scipy.stats import norm
    from scipy.stats import t as student

    of_images = float(np.nanstd(images, ddof=1))
    of_seeds, freedom = _seed_error(mine, theirs)

    def interval(level: float) -> tuple[float, float]:
        z, t = float(norm.ppf(0.5 + level / 2)), float(student.ppf(0.5 + level / 2, freedom))
        reach = math.hypot(z * of_images, t * of_seeds)
        return value - reach, value + reach

    lower, upper = interval(CONFIDENCE)
    return Difference(value=value, lower=lower, upper=upper, p_value=largest_alpha(interval) if value else 1.0)


def _seed_error(mine: Mapping[int, float], theirs: Mapping[int, float]) -> tuple[float, float]:
    """Standard error of the difference of the means over seeds, and its degrees of freedom."""
    if set(mine) == set(theirs):
        paired = np.array([mine[seed] - theirs[seed] for seed in mine])
        return float(paired.std(ddof=1)) / math.sqrt(len(paired)), len(paired) - 1
    parts = [np.array(list(side.values())) for side in (mine, theirs) if len(side) > 1]
    variances = [float(part.var(ddof=1)) / len(part) for part in parts]
    total = sum(variances)
    if total <= 0:
        return 0.0, 1.0
    return math.sqrt(total), total**2 / sum(v**2 / (len(p) - 1) for v, p in zip(variances, parts, strict=True))


def _mean_over_tasks(differences: list[Floats]) -> Floats:
    """Mean over tasks; each task's resamples are shuffled, since equal seeds mean nothing across tasks."""
    rng = np.random.default_rng(0)
    mean: Floats = np.mean([rng.permutation(values) for values in differences], axis=0)
    return mean


def _model(result: ProbeResult) -> str:
    """Name of a column: the backbone, with its protocol where that is not the usual one."""
    return result.backbone if result.protocol == "linear" else f"{result.backbone} ({result.protocol})"


def _kind(result: ProbeResult) -> Kind:
    return cast("Kind", result.kind)


def _check_same_images(first: ProbeResult, second: ProbeResult) -> None:
    if first.provenance.get("images") != second.provenance.get("images"):
        raise ConfigError(
            f"{first.task}: {first.backbone} and {second.backbone} were scored on different images",
            hint="probe both with the same --data and --size",
        )


def load_scores(result: ProbeResult) -> tuple[Labels, Floats]:
    """Labels and scores of the test split.

    Raises:
        ConfigError: The file is gone.
    """
    path = Path(result.scores_path)
    if not path.is_file():
        raise ConfigError(f"the scores of {result.backbone} on {result.task} are gone ({path})", hint="probe it again")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["labels"], arrays["scores"]


def load_groups(result: ProbeResult) -> npt.NDArray[np.int64] | None:
    """(N,) the groups of the test images; None where every image stands for itself."""
    with np.load(result.scores_path, allow_pickle=False) as arrays:
        return arrays["groups"] if "groups" in arrays.files else None


def _resampled(result: ProbeResult, metric: str, num_resamples: int) -> Floats:
    labels, scores = load_scores(result)
    threshold = np.asarray(result.thresholds)
    groups = load_groups(result)
    stats = boot_stats(labels, scores, _kind(result), threshold=threshold, num_resamples=num_resamples, groups=groups)
    column: Floats = stats[:, METRICS.index(metric)]
    return column


def model_names(results: Sequence[ProbeResult]) -> list[str]:
    """Names of the columns of a side-by-side table, in the order of the results."""
    return list(dict.fromkeys(_model(result) for result in results))


def side_by_side(results: Sequence[ProbeResult], *, metric: str = "auc") -> list[list[str]]:
    """Rows of a table: the task, then each model's value; the mean last.

    A value is `value [lower, upper]`, or `mean ± deviation (n seeds)` where a model has several seeds.

    Args:
        results: Of one or more models.
        metric: One of `eval.scoring.metrics.METRICS`.
    """
    names = model_names(results)
    cells: dict[tuple[str, str], list[ProbeResult]] = {}
    for result in results:
        cells.setdefault((result.task, _model(result)), []).append(result)
    tasks = list(dict.fromkeys(r.task for r in results))
    rows = [[task_title(task), *(_cell(cells.get((task, name), []), metric) for name in names)] for task in tasks]
    if len(tasks) > 1:
        rows.append([MEAN, *(_mean_cell([cells.get((task, name), []) for task in tasks], metric) for name in names)])
    return rows


def task_title(name: str) -> str:
    """A task's name in print."""
    return TASKS[name].title if name in TASKS else name


def _cell(runs: Sequence[ProbeResult], metric: str) -> str:
    if len(runs) == 1:
        bounds = runs[0].bounds(metric)
        return f"{runs[0].metrics[metric].value:.3f} [{bounds.lower:.3f}, {bounds.upper:.3f}]"
    return _mean_and_deviation([run.metrics[metric].value for run in runs])


def _mean_cell(tasks: Sequence[Sequence[ProbeResult]], metric: str) -> str:
    """Over the seeds that have every task."""
    by_task = [{run.seed: run.metrics[metric].value for run in runs} for runs in tasks]
    seeds = set.intersection(*(set(values) for values in by_task))
    return _mean_and_deviation([float(np.mean([values[seed] for values in by_task])) for seed in sorted(seeds)])


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = float(np.mean(values))
    return f"{mean:.3f} ± {np.std(values, ddof=1):.3f} ({len(values)} seeds)" if len(values) > 1 else f"{mean:.3f}"
