"""The scaling analysis as files: tables as CSV, figures as SVG and PNG, one self-contained page."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import stderr
from infra.web.html import render_page, render_table
from shards.errors import ConfigError
from shards.files import write_text

if TYPE_CHECKING:
    from eval.scaling.laws import Correlation, Slope
    from eval.scaling.measurements import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Everything that one run of `biovfm scaling` found."""

    source: str
    measurements: Sequence[Measurement]
    slopes: Sequence[Slope]
    factors: Sequence[Mapping[str, Any]]
    correlations: Sequence[Correlation]


def analyse(results: Sequence[Path], *, data: str | None = None, size: int = 28) -> Analysis:
    """Fit everything that tables of results allow.

    Args:
        results: CSV files; see `eval.scaling.measurements.read_tables`.
        data: Folder or URL of the MedMNIST archives, for the properties of their images.
        size: Edge of these images in pixels.

    Raises:
        ConfigError: A table cannot be read.
    """
    from eval.scaling.laws import correlate, fit_slopes
    from eval.scaling.measurements import read_tables

    measurements = read_tables(results)
    slopes = fit_slopes(measurements)
    factors = _factors({point.task for point in measurements}, data=data, size=size)
    return Analysis(
        source=", ".join(path.name for path in results),
        measurements=measurements,
        slopes=slopes,
        factors=factors,
        correlations=correlate(slopes, factors),
    )


def _factors(tasks: set[str], *, data: str | None, size: int) -> list[dict[str, Any]]:
    """Properties of the MedMNIST tasks among `tasks`; those of images are `nan` where there is no image."""
    from eval.medmnist.data import load_task
    from eval.medmnist.tasks import TASKS
    from eval.scaling.task_factors import known_factors, task_factors
    from shards.errors import TaskNotFoundError

    rows: list[dict[str, Any]] = []
    for task in (task for task in TASKS if task in tasks):
        unknown = {"gzip_ratio": math.nan, "davies_bouldin": math.nan} if data else {}
        try:
            rows.append(task_factors(load_task(task, size=size, root=data)) if data else known_factors(task))
        except TaskNotFoundError as error:
            stderr().print(f"no images: {error.message}", markup=False, soft_wrap=True)
            rows.append({**known_factors(task), **unknown})
    return rows


def write_analysis(analysis: Analysis, out: Path) -> dict[str, Path]:
    """Write tables, figures and the page.

    Returns:
        What → file.

    Raises:
        ConfigError: The folder cannot be written.
    """
    try:
        return _write(analysis, out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}", hint="pass another --out FOLDER") from error


def _write(analysis: Analysis, out: Path) -> dict[str, Path]:
    from dataclasses import asdict

    from eval.scaling.measurements import MEAN, mean_over_tasks

    out.mkdir(parents=True, exist_ok=True)
    with_mean = [*analysis.measurements, *mean_over_tasks(analysis.measurements)]
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "measurements": [asdict(point) for point in with_mean],
        "slopes": [slope.row() for slope in analysis.slopes],
        "factors": list(analysis.factors),
        "correlations": [item.row() for item in analysis.correlations],
    }
    files = {name: write_csv(out / f"{name}.csv", rows) for name, rows in tables.items() if rows}
    figures = _figures(analysis, with_mean, out)
    files |= {name: paths[0] for name, paths in figures.items()}
    means = [point for point in with_mean if point.task == MEAN]
    files["page"] = out / "index.html"
    write_text(files["page"], _page(analysis, means, figures))
    return files


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write dictionaries with the same keys as a CSV file with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
    return path


def _figures(analysis: Analysis, points: Sequence[Measurement], out: Path) -> dict[str, list[Path]]:
    from eval.scaling.figures import plot_correlations, plot_curves, plot_mixes, plot_slopes, save
    from eval.scaling.laws import AXES

    drawn: dict[str, Any] = {"mixes": plot_mixes(_summaries(points))}
    for axis in AXES:
        drawn[f"curves_{axis}"] = plot_curves(points, analysis.slopes, axis)
        drawn[f"slopes_{axis}"] = plot_slopes(analysis.slopes, axis)
        drawn[f"correlations_{axis}"] = plot_correlations(analysis.correlations, axis)
    return {name: save(figure, out / "figures" / name) for name, figure in drawn.items() if figure is not None}


def _summaries(points: Sequence[Measurement]) -> list[Measurement]:
    """The means over tasks; of one task alone its own results."""
    from eval.scaling.measurements import MEAN

    means = [point for point in points if point.task == MEAN]
    return means or (list(points) if len({point.task for point in points}) == 1 else [])


def _page(analysis: Analysis, means: Sequence[Measurement], figures: dict[str, list[Path]]) -> str:
    from eval.scaling.figures import AXIS_LABELS, title_of

    parts = [_reading(analysis)]
    if means:
        columns = ["algorithm", "model", "data fraction", "pretraining set", "seed", "mean AUC (%)"]
        rows = [[p.algorithm, p.model, p.data_fraction, p.mix, p.seed, round(p.auc_percent, 2)] for p in means]
        parts.append(f"<h2>Mean over tasks</h2>{render_table(columns, rows)}")
    else:
        parts.append(f"<h2>Results</h2>{_result_table(analysis.measurements, title_of)}")
    if "mixes" in figures:
        parts.append(f"<h2>By pretraining set</h2>{_svg(figures['mixes'][0])}")
    drawn = {slope.axis for slope in analysis.slopes}
    for axis, label in AXIS_LABELS.items():
        slopes = [slope for slope in analysis.slopes if slope.axis == axis]
        if not slopes or (axis == "data_fraction" and "num_images" in drawn):  # the same laws over another unit
            continue
        parts.append(f"<h2>Over {html.escape(label)}</h2>")
        parts += [_svg(figures[name][0]) for name in (f"curves_{axis}", f"slopes_{axis}") if name in figures]
        parts.append(_slope_table(slopes, title_of))
        found = [item for item in analysis.correlations if item.axis == axis]
        if found:
            figure = figures.get(f"correlations_{axis}")
            parts.append("<h3>What the slopes go with</h3>" + (_svg(figure[0]) if figure else ""))
            parts.append(_correlation_table(found))
    if analysis.factors:
        names = list(analysis.factors[0])
        rows = [[row[name] for name in names] for row in analysis.factors]
        parts.append(f"<h2>Properties of the tasks</h2>{render_table(names, rows)}")
    return render_page(
        title="Scaling", body="".join(parts), lead=f"{len(analysis.measurements)} results of {analysis.source}"
    )


def _result_table(points: Sequence[Measurement], title_of: Callable[[str], str]) -> str:
    columns = [
        "task",
        "algorithm",
        "model",
        "images",
        "data fraction",
        "modality",
        "AUC (%)",
        "95 % of the test images",
    ]
    rows = [
        [
            title_of(point.task),
            point.algorithm,
            point.model,
            f"{point.num_images:,.0f}" if math.isfinite(point.num_images) else "",
            point.data_fraction,
            point.modality,
            round(point.auc_percent, 2),
            _interval(point.lower_percent, point.upper_percent, digits=1),
        ]
        for point in points
    ]
    return render_table(columns, rows)


def _interval(lower: float, upper: float, *, digits: int) -> str:
    return f"[{lower:.{digits}f}, {upper:.{digits}f}]" if math.isfinite(lower) else "–"


def _reading(analysis: Analysis) -> str:
    fewest = min((slope.law.num_points for slope in analysis.slopes), default=0)
    runs = max((slope.law.num_runs / slope.law.num_points for slope in analysis.slopes), default=0)
    return (
        "<p>Each law is a straight line through logarithms. <em>power</em>: AUC = c · x<sup>slope</sup>, as BioVFM "
        "fits it. <em>saturating</em>: 100 − AUC = c · x<sup>slope</sup>; a slope of −0.1 means that ten times x "
        "leaves 79 % of the error. Runs at one x (seeds, repetitions) are averaged before the fit, since what a size "
        "has of its own, all of its runs share; intervals are 95 % t-intervals with as many degrees of freedom as "
        f"there are places, less two. Here are at most {runs:.3g} run{'s' if runs > 1 else ''} per place, and the "
        f"smallest fit has {fewest} "
        "places (two places have a slope and no interval). A place where every run has an AUC of 100 is left out of "
        "the saturating law and counted. A slope whose interval holds 0 shows no scaling; it does not show that there "
        "is none.</p>"
    )


def _slope_table(slopes: Sequence[Slope], title_of: Callable[[str], str]) -> str:
    columns = [
        "task",
        "algorithm",
        "form",
        "held fixed",
        "slope",
        "95 % interval",
        "p",
        "R²",
        "places",
        "runs",
        "left out",
    ]
    rows = [
        [
            title_of(slope.task),
            slope.algorithm,
            slope.form,
            slope.fixed,
            f"{slope.law.slope:.4f}",
            _interval(slope.law.lower, slope.law.upper, digits=4),
            f"{slope.law.p_value:.3f}" if slope.law.num_points > 2 else "–",
            f"{slope.law.r_squared:.3f}" if slope.law.num_points > 2 else "–",
            slope.law.num_points,
            slope.law.num_runs,
            slope.num_left_out,
        ]
        for slope in slopes
    ]
    return render_table(columns, rows)


def _correlation_table(items: Sequence[Correlation]) -> str:
    columns = ["factor", "algorithm", "form", "Pearson", "p", "Spearman", "p", "tasks"]
    rows = [
        [
            item.factor,
            item.algorithm,
            item.form,
            f"{item.pearson:+.2f}",
            f"{item.pearson_p:.3f}",
            f"{item.spearman:+.2f}",
            f"{item.spearman_p:.3f}",
            item.num_tasks,
        ]
        for item in items
    ]
    return render_table(columns, rows)


def _svg(path: Path) -> str:
    """The figure itself, inside the page, on a light ground."""
    text = path.read_text(encoding="utf-8")
    return f'<figure style="background:#fff;border-radius:8px;padding:.5rem">{text[text.index("<svg") :]}</figure>'
