"""Probe results on disk as JSON lines, and several models side by side.

A line is one `ProbeResult`. Lines are only ever appended, so that a killed run leaves whole lines behind, and a
result that is asked for again can be found by its facts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.medmnist.tasks import TASKS, Kind
from eval.probes.bootstrap import CONFIDENCE, NUM_RESAMPLES, Difference, boot_stats, difference
from eval.probes.linear import ProbeResult
from eval.probes.metrics import METRICS, Floats, Labels
from shards.errors import ConfigError

MEAN: str = "mean"
"""Name of the row that averages all tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One model against the first, on one task or on the mean over tasks.

    Attributes:
        task: MedMNIST's flag, or `mean`.
        metric: One of `eval.probes.metrics.METRICS`.
        backbone: The model.
        baseline: The first model.
        difference: Model minus baseline, paired over images.
    """

    task: str
    metric: str
    backbone: str
    baseline: str
    difference: Difference

    def record(self) -> dict[str, Any]:
        """As one JSON object."""
        return asdict(self)


def append_results(path: Path, results: Iterable[ProbeResult]) -> None:
    """Append one line a result; makes the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(result.record(), default=str) + "\n" for result in results)
    with path.open("a", encoding="utf-8") as out:
        out.write(text)


def read_results(path: Path) -> list[ProbeResult]:
    """All results of a file.

    Raises:
        ConfigError: The file is missing or a line is no result.
    """
    if not path.is_file():
        raise ConfigError(f"there is no {path}", hint="biovfm probe CHECKPOINT --out results.jsonl writes one")
    results = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            results.append(ProbeResult.from_record(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{path}:{number} is no probe result: {error}") from error
    return results


def compare(
    results: Sequence[ProbeResult], *, metric: str = "auc", num_resamples: int = NUM_RESAMPLES
) -> list[Comparison]:
    """Every later model against the first, task by task and on the mean of the tasks that both have.

    Resample i draws the same images for both models. On the mean over tasks the tasks are resampled independently
    of one another, since they share no images.

    Args:
        results: Of several models; each has its `scores_path`.
        metric: One of `eval.probes.metrics.METRICS`.
        num_resamples: B.

    Raises:
        ConfigError: Two results of one task were scored on different images.
    """
    names = list(dict.fromkeys(_model(result) for result in results))
    by_model = {name: {r.task: r for r in results if _model(r) == name} for name in names}
    resampled: dict[tuple[str, str], Floats] = {}

    def stats(name: str, task: str) -> Floats:
        if (name, task) not in resampled:
            resampled[name, task] = _resampled(by_model[name][task], metric, num_resamples)
        return resampled[name, task]

    comparisons = []
    for name in names[1:]:
        tasks = [task for task in by_model[names[0]] if task in by_model[name]]
        differences, values = [], []
        for task in tasks:
            pair = by_model[name][task], by_model[names[0]][task]
            _check_same_images(*pair)
            values.append(pair[0].metrics[metric].value - pair[1].metrics[metric].value)
            differences.append(stats(name, task) - stats(names[0], task))
            found = difference(values[-1], differences[-1], confidence=CONFIDENCE)
            comparisons.append(_comparison(task, metric, name, names[0], found))
        if len(tasks) > 1:
            found = difference(float(np.mean(values)), _mean_over_tasks(differences), confidence=CONFIDENCE)
            comparisons.append(_comparison(MEAN, metric, name, names[0], found))
    return comparisons


def _comparison(task: str, metric: str, backbone: str, baseline: str, found: Difference) -> Comparison:
    return Comparison(task=task, metric=metric, backbone=backbone, baseline=baseline, difference=found)


def _mean_over_tasks(differences: list[Floats]) -> Floats:
    """Mean over tasks; each task's resamples are shuffled, since equal seeds mean nothing across tasks."""
    rng = np.random.default_rng(0)
    mean: Floats = np.mean([rng.permutation(values) for values in differences], axis=0)
    return mean


def _model(result: ProbeResult) -> str:
    """Name of a column: the backbone, with its seed or protocol where that is not the usual one."""
    extra = [f"seed {result.seed}"] if result.seed else []
    extra += [result.protocol] if result.protocol != "linear" else []
    return f"{result.backbone} ({', '.join(extra)})" if extra else result.backbone


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


def _resampled(result: ProbeResult, metric: str, num_resamples: int) -> Floats:
    labels, scores = load_scores(result)
    kind: Kind = TASKS[result.task].kind
    threshold = np.asarray(result.thresholds)
    stats = boot_stats(labels, scores, kind, threshold=threshold, num_resamples=num_resamples)
    column: Floats = stats[:, METRICS.index(metric)]
    return column


def model_names(results: Sequence[ProbeResult]) -> list[str]:
    """Names of the columns of a side-by-side table, in the order of the results."""
    return list(dict.fromkeys(_model(result) for result in results))


def side_by_side(results: Sequence[ProbeResult], *, metric: str = "auc") -> list[list[str]]:
    """Rows of a table: the task, then `value [lower, upper]` of every model; the mean last.

    Args:
        results: Of one or more models.
        metric: One of `eval.probes.metrics.METRICS`.
    """
    names = model_names(results)
    cells = {(r.task, _model(r)): r.metrics[metric] for r in results}
    tasks = list(dict.fromkeys(r.task for r in results))
    rows = []
    for task in tasks:
        row = [TASKS[task].title]
        for name in names:
            cell = cells.get((task, name))
            row.append(f"{cell.value:.3f} [{cell.lower:.3f}, {cell.upper:.3f}]" if cell else "–")
        rows.append(row)
    if len(tasks) > 1:
        rows.append(["mean", *(_mean_cell([cells.get((task, name)) for task in tasks]) for name in names)])
    return rows


def _mean_cell(cells: list[Any]) -> str:
    return "–" if any(cell is None for cell in cells) else f"{float(np.mean([cell.value for cell in cells])):.3f}"
