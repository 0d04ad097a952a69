"""Figures of the scaling analysis as SVG and PNG; no screen and no global state of matplotlib is used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from eval.measurements import Measurement
from eval.scaling import Correlation, Slope
from eval.tasks import TASKS

COLOURS: Final = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490")
AXIS_LABELS: Final = {
    "params_total_m": "trained parameters, encoder and decoder (M)",
    "params_encoder_m": "encoder parameters (M)",
    "num_images": "pretraining images",
    "data_fraction": "fraction of the pretraining images",
    "num_modalities": "modalities in the pretraining mix",
}
_PNG_DPI: Final = 160


def save(figure: Any, path: Path) -> list[Path]:
    """Write `path` + `.svg` and `.png`; the SVG is the same bytes for the same figure.

    Args:
        figure: Of matplotlib.
        path: Without a suffix.
    """
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(".svg"), path.with_suffix(".png")]
    with mpl.rc_context({"svg.hashsalt": "biovfm", "svg.fonttype": "none"}):
        figure.savefig(written[0], metadata={"Date": None})
    figure.savefig(written[1], dpi=_PNG_DPI)
    return written


def title_of(task: str) -> str:
    """A task's name in print."""
    return TASKS[task].title if task in TASKS else task


def plot_curves(measurements: Sequence[Measurement], slopes: Sequence[Slope], axis: str) -> Any | None:
    """Test AUC over `axis`, a panel a task, log-log, with fitted power laws; None where nothing varies along it."""
    laws = [slope for slope in slopes if slope.axis == axis and slope.form == "power"]
    tasks = [task for task in dict.fromkeys(p.task for p in measurements) if any(s.task == task for s in laws)]
    if not tasks:
        return None
    figure, panels = _grid(len(tasks))
    colour = _colours([point.algorithm for point in measurements])
    for panel, task in zip(panels, tasks, strict=True):
        points = [point for point in measurements if point.task == task and math.isfinite(point.along(axis))]
        mine = [slope for slope in laws if slope.task == task]
        _draw_points(panel, points, axis, colour, fitted={slope.algorithm for slope in mine})
        for slope in mine:
            _draw_law(panel, slope, measurements, axis, colour[slope.algorithm])
        panel.set(xscale="log", yscale="log", title=title_of(task))
        _plain_ticks(panel, [point.along(axis) for point in points])
        panel.legend(fontsize=7, frameon=False)
    figure.supxlabel(AXIS_LABELS[axis], fontsize=9)
    figure.supylabel("test AUC (%)", fontsize=9)
    return figure


def plot_slopes(slopes: Sequence[Slope], axis: str) -> Any | None:
    """Slopes with their intervals, a row a task, for both forms side by side; None without slopes."""
    chosen = [slope for slope in slopes if slope.axis == axis]
    if not chosen:
        return None
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(slope.task for slope in chosen))
    colour = _colours([slope.algorithm for slope in chosen])
    figure = Figure(figsize=(9, 0.8 + 0.36 * len(tasks)), layout="constrained")
    for number, form in enumerate(("power", "saturating")):
        panel = figure.add_subplot(1, 2, number + 1)
        rows = [slope for slope in chosen if slope.form == form]
        for place, algorithm in enumerate(colour):
            mine = [slope for slope in rows if slope.algorithm == algorithm]
            heights = [tasks.index(s.task) + 0.22 * (place - (len(colour) - 1) / 2) for s in mine]
            _draw_intervals(panel, mine, heights, colour[algorithm], algorithm)
        panel.axvline(0, color="0.6", linewidth=0.8)
        panel.set_yticks(range(len(tasks)), [title_of(task) for task in tasks] if number == 0 else [], fontsize=8)
        panel.invert_yaxis()
        panel.set_xlabel("slope of ln(AUC)" if form == "power" else "slope of ln(100 − AUC)", fontsize=9)
        panel.tick_params(axis="x", labelsize=8)
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


def plot_correlations(correlations: Sequence[Correlation], axis: str) -> Any | None:
    """Correlation of slopes with the tasks' properties, bars by algorithm; None without correlations."""
    chosen = [item for item in correlations if item.axis == axis and item.form == "power"]
    if not chosen:
        return None
    from matplotlib.figure import Figure

    factors = list(dict.fromkeys(item.factor for item in chosen))
    colour = _colours([item.algorithm for item in chosen])
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    width = 0.8 / len(colour)
    for number, name in enumerate(("pearson", "spearman")):
        panel = figure.add_subplot(1, 2, number + 1)
        for place, algorithm in enumerate(colour):
            mine = [item for item in chosen if item.algorithm == algorithm]
            heights = [factors.index(item.factor) + width * (place - (len(colour) - 1) / 2) for item in mine]
            panel.barh(heights, [getattr(i, name) for i in mine], width, color=colour[algorithm], label=algorithm)
        panel.axvline(0, color="0.6", linewidth=0.8)
        panel.set_yticks(range(len(factors)), factors if number == 0 else [], fontsize=8)
        panel.set(xlim=(-1, 1), xlabel=f"{name.capitalize()} correlation")
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure


def _grid(num_panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(4, num_panels)
    rows = math.ceil(num_panels / columns)
    figure = Figure(figsize=(3.1 * columns + 0.6, 2.5 * rows + 0.4), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(num_panels)]


def _colours(algorithms: Sequence[str]) -> dict[str, str]:
    names = list(dict.fromkeys(algorithms))
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def _draw_points(
    panel: Any, points: Sequence[Measurement], axis: str, colour: dict[str, str], *, fitted: set[str]
) -> None:
    for algorithm in dict.fromkeys(point.algorithm for point in points):
        mine = [point for point in points if point.algorithm == algorithm]
        panel.plot(
            [point.along(axis) for point in mine],
            [point.auc_percent for point in mine],
            "o",
            color=colour[algorithm],
            markersize=3.5,
            label=None if algorithm in fitted else algorithm,
        )


def _draw_law(panel: Any, slope: Slope, measurements: Sequence[Measurement], axis: str, colour: str) -> None:
    places = [point.along(axis) for point in measurements if point.algorithm == slope.algorithm]
    known = [place for place in places if math.isfinite(place)]
    x = np.geomspace(min(known), max(known), 32)
    panel.plot(x, slope.law(x), "-", color=colour, linewidth=1, label=f"{slope.algorithm} ({slope.law.slope:.4f})")


def _draw_intervals(panel: Any, slopes: Sequence[Slope], heights: Sequence[float], colour: str, label: str) -> None:
    for slope, height in zip(slopes, heights, strict=True):
        if math.isfinite(slope.law.lower):
            panel.plot([slope.law.lower, slope.law.upper], [height, height], "-", color=colour, linewidth=1)
    panel.plot([slope.law.slope for slope in slopes], heights, "o", color=colour, markersize=3.5, label=label)


def _plain_ticks(panel: Any, places: Sequence[float]) -> None:
    """Numbers as people write them, at the measured places only."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    plain = FuncFormatter(lambda value, _: f"{value:,.4g}")
    panel.set_xticks(sorted(set(places)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(MaxNLocator(4))
    panel.yaxis.set_minor_locator(NullLocator())
    for side in (panel.xaxis, panel.yaxis):
        side.set_major_formatter(plain)
    panel.tick_params(labelsize=7)
    panel.title.set_fontsize(9)
