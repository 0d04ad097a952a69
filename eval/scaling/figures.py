"""Figures of the scaling analysis as SVG and PNG; no screen and no global state of matplotlib is used."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from eval.medmnist.tasks import TASKS
from eval.scaling.laws import Correlation, Slope, fixed_settings
from eval.scaling.measurements import NOT_STATED, Measurement

COLOURS: Final = ("#0b6bcb", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490")
AXIS_LABELS: Final = {
    "params_total_m": "trained parameters, encoder and decoder (M)",
    "params_encoder_m": "encoder parameters (M)",
    "num_images": "pretraining images",
    "data_fraction": "fraction of the pretraining images",
    "num_modalities": "modalities in the pretraining mix",
}
MARKERS: Final = ("o", "s", "^", "D", "v", "P")
DASHES: Final = ("-", "--", ":", "-.")
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
    """Test AUC over `axis`, a panel a task, log-log, with fitted power laws; None where nothing varies along it.

    Colours tell algorithms apart; markers and dashes tell apart what else the laws hold fixed.
    """
    laws = [slope for slope in slopes if slope.axis == axis and slope.form == "power"]
    tasks = [task for task in dict.fromkeys(p.task for p in measurements) if any(s.task == task for s in laws)]
    if not tasks:
        return None
    figure, panels = _grid(len(tasks))
    colour = _colours([point.algorithm for point in measurements])
    looks = _looks(laws)
    for panel, task in zip(panels, tasks, strict=True):
        points = [point for point in measurements if point.task == task and math.isfinite(point.along(axis))]
        groups: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
        for point in points:
            groups[point.algorithm, fixed_settings(point, axis)].append(point)
        by_group = {(law.algorithm, law.fixed): law for law in laws if law.task == task}
        for (algorithm, fixed), members in groups.items():
            law = by_group.get((algorithm, fixed))
            _draw_group(panel, members, law, axis, colour=colour[algorithm], look=looks.get(fixed, looks[""]))
        low, high = panel.dataLim.intervaly
        if high - low < 1e-6 * high:  # a logarithmic axis cannot be scaled to numbers that differ by rounding alone
            panel.set_ylim(low / 1.01, high * 1.01)
        panel.set(xscale="log", yscale="log", title=title_of(task))
        _plain_ticks(panel, [point.along(axis) for point in points])
        outside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)} if len(tasks) == 1 else {}
        panel.legend(fontsize=7, frameon=False, **outside)
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
    groups = list(dict.fromkeys((slope.algorithm, slope.fixed) for slope in chosen))
    colour, looks = _colours([slope.algorithm for slope in chosen]), _looks(chosen)
    row_inches = max(0.36, 0.13 * (len(groups) + 1))
    figure = Figure(figsize=(9, 0.9 + max(row_inches * len(tasks), 0.13 * len(groups))), layout="constrained")
    for number, form in enumerate(("power", "saturating")):
        panel = figure.add_subplot(1, 2, number + 1)
        for place, (algorithm, fixed) in enumerate(groups):
            mine = [s for s in chosen if (s.form, s.algorithm, s.fixed) == (form, algorithm, fixed)]
            shift = (place - (len(groups) - 1) / 2) / (len(groups) + 1)
            heights = [tasks.index(slope.task) + shift for slope in mine]
            look = looks[fixed]
            _draw_intervals(panel, mine, heights, colour=colour[algorithm], look=look, label=_label(algorithm, look))
        panel.axvline(0, color="0.6", linewidth=0.8)
        panel.set_yticks(range(len(tasks)), [title_of(task) for task in tasks] if number == 0 else [], fontsize=8)
        panel.set_ylim(len(tasks) - 0.5, -0.5)
        panel.set_xlabel("slope of ln(AUC)" if form == "power" else "slope of ln(100 − AUC)", fontsize=9)
        panel.tick_params(axis="x", labelsize=8)
    figure.axes[1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
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


def plot_mixes(points: Sequence[Measurement]) -> Any | None:
    """Test AUC by pretraining set, a row per set; None where no model was pretrained on two of them.

    The mark is the mean over seeds, the faint ones behind it are the seeds.

    Args:
        points: Of one task, or means over tasks.
    """
    groups: dict[tuple[str, str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        groups[point.algorithm, point.model, point.data_fraction][point.mix].append(point.auc_percent)
    groups = {key: mixes for key, mixes in groups.items() if len(mixes) > 1}
    if not groups:
        return None
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(mix for mixes in groups.values() for mix in mixes))
    colour = _colours([algorithm for algorithm, _, _ in groups])
    figure = Figure(figsize=(7.2, 1.0 + 0.42 * len(names)), layout="constrained")
    panel = figure.add_subplot()
    for place, ((algorithm, model, fraction), mixes) in enumerate(groups.items()):
        shift = (place - (len(groups) - 1) / 2) * min(0.16, 0.7 / len(groups))
        look: dict[str, Any] = {
            "color": colour[algorithm],
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": "none",
        }
        for mix, values in mixes.items():
            panel.plot(values, [names.index(mix) + shift] * len(values), markersize=3, alpha=0.35, **look)
        heights = [names.index(mix) + shift for mix in mixes]
        named = [part for part in (algorithm, model) if part != NOT_STATED] or [f"model {NOT_STATED}"]
        label = ", ".join([*named, *([f"fraction {fraction:g}"] if fraction != 1 else [])])
        panel.plot([np.mean(values) for values in mixes.values()], heights, markersize=6, label=label, **look)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.set_ylim(len(names) - 0.5, -0.5)
    panel.set_xlabel("test AUC (%)", fontsize=9)
    panel.tick_params(axis="x", labelsize=8)
    panel.grid(axis="x", color="0.9", linewidth=0.6)
    panel.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _grid(num_panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    if num_panels == 1:
        figure = Figure(figsize=(7.2, 3.8), layout="constrained")
        return figure, [figure.add_subplot()]
    columns = min(4, num_panels)
    rows = math.ceil(num_panels / columns)
    figure = Figure(figsize=(3.1 * columns + 0.6, 2.5 * rows + 0.4), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(num_panels)]


def _colours(algorithms: Sequence[str]) -> dict[str, str]:
    names = list(dict.fromkeys(algorithms))
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class _Look:
    """How one choice of fixed settings is drawn, and what distinguishes it from the other choices."""

    marker: str
    dash: str
    note: str


def _looks(slopes: Sequence[Slope]) -> dict[str, _Look]:
    """A look for each choice of fixed settings; that of "" is for points without a law."""
    choices = sorted({slope.fixed for slope in slopes}, key=[slope.fixed for slope in slopes].index)
    common = set.intersection(*(set(fixed.split(", ")) for fixed in choices)) if choices else set()
    looks = {"": _Look("o", "-", "")}
    for number, fixed in enumerate(choices):
        note = ", ".join(part.replace("=", " ").replace("_", " ") for part in fixed.split(", ") if part not in common)
        looks[fixed] = _Look(MARKERS[number % len(MARKERS)], DASHES[number % len(DASHES)], note)
    return looks


def _label(algorithm: str, look: _Look) -> str:
    return f"{algorithm}, {look.note}" if look.note else algorithm


def _draw_group(
    panel: Any, points: Sequence[Measurement], slope: Slope | None, axis: str, *, colour: str, look: _Look
) -> None:
    """Points that differ in nothing but their place, and the law through them."""
    places = [point.along(axis) for point in points]
    name = _label(points[0].algorithm, look)
    label = None if slope else name
    values = [point.auc_percent for point in points]
    panel.plot(places, values, look.marker, color=colour, markersize=3.5, label=label)
    if slope:
        x = np.geomspace(min(places), max(places), 32)
        label = f"{name} ({slope.law.slope:.4f})"
        panel.plot(x, slope.law(x), look.dash, color=colour, linewidth=1, label=label)


def _draw_intervals(
    panel: Any, slopes: Sequence[Slope], heights: Sequence[float], *, colour: str, look: _Look, label: str
) -> None:
    for slope, height in zip(slopes, heights, strict=True):
        if math.isfinite(slope.law.lower):
            panel.plot([slope.law.lower, slope.law.upper], [height, height], "-", color=colour, linewidth=1)
    values = [slope.law.slope for slope in slopes]
    panel.plot(values, heights, look.marker, color=colour, markersize=3.5, label=label)


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
