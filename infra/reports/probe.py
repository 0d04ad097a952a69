"""Probe results for people and programs: tables, one JSON object, one page."""

from __future__ import annotations

import html
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.console import emit
from infra.web.html import render_page, render_table
from shards.files import write_text

if TYPE_CHECKING:
    from eval.probes.comparison import Comparison
    from eval.probes.results import ProbeResult

METRIC_TITLES: Final = {
    "auc": "AUC",
    "acc": "ACC",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "mcc": "Matthews correlation",
}
"""Metrics of the page; the terminal shows the first two."""
TERMINAL_METRICS: Final = ("auc", "acc")


def short(checkpoint: str, *, width: int = 32) -> str:
    """The end of a long path."""
    return checkpoint if len(checkpoint) <= width else f"…{checkpoint[1 - width :]}"


def show(
    results: Sequence[ProbeResult],
    *,
    missing: Sequence[str],
    page: Path | None,
    out: str | None,
    json_: bool,
    published: bool = False,
) -> None:
    """Print the table (or one JSON object) and write the page.

    Args:
        results: Of all tasks and models.
        missing: Tasks that could not be probed.
        page: HTML page to write.
        out: Where the results were kept, for the JSON object.
        json_: One JSON object instead of tables.
        published: Show published figures beside the results.
    """
    from eval.probes.comparison import compare, model_names

    comparisons = compare(results) if len(model_names(results)) > 1 else []
    if page:
        write_text(page, probe_page(results, comparisons, missing=missing))
    if json_:
        emit(
            {
                "results": [result.record() for result in results],
                "comparisons": [comparison.record() for comparison in comparisons],
                "missing_tasks": list(missing),
                "published": _published_records(results) if published else [],
                "results_file": out,
                "page": str(page) if page else None,
            }
        )
        return
    sys.stdout.write(probe_text(results, comparisons, missing=missing, published=published))


def _published_records(results: Sequence[ProbeResult]) -> list[dict[str, Any]]:
    from eval.medmnist.published import MARK, published_probes

    tasks = {result.task for result in results}
    return [
        {**asdict(item), "auc": {task: auc for task, auc in item.auc.items() if task in tasks}, "note": MARK}
        for item in published_probes()
    ]


def probe_text(
    results: Sequence[ProbeResult],
    comparisons: Sequence[Comparison],
    *,
    missing: Sequence[str],
    published: bool = False,
) -> str:
    """Tables for a terminal."""
    from eval.medmnist.published import published_columns, published_rows
    from eval.probes.comparison import model_names, side_by_side

    names = model_names(results)
    parts = [
        text_table([METRIC_TITLES[metric], *map(short, names)], side_by_side(results, metric=metric))
        for metric in TERMINAL_METRICS
    ]
    if comparisons:
        parts.append(text_table(["AUC difference", "task", "95 % interval", "p"], difference_rows(comparisons)))
    tasks = list(dict.fromkeys(result.task for result in results))
    if published and (rows := published_rows(tasks)):
        parts.append(text_table(published_columns(tasks), rows))
    if missing:
        parts.append(f"missing, not probed: {', '.join(missing)}\n")
    return "\n".join(parts)


def difference_rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """One row per comparison."""
    return [
        [
            f"{short(item.backbone)} − {short(item.baseline)}",
            item.task,
            f"{item.difference.value:+.3f} [{item.difference.lower:+.3f}, {item.difference.upper:+.3f}]",
            f"{item.difference.p_value:.3f}",
        ]
        for item in comparisons
    ]


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of equal-width columns."""
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [columns, *rows]
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]) + "\n"


def probe_page(
    results: Sequence[ProbeResult],
    comparisons: Sequence[Comparison],
    *,
    missing: Sequence[str],
) -> str:
    """One self-contained page: metric tables, differences, published figures, what each number was made from."""
    from eval.probes.comparison import model_names, side_by_side

    parts = [f"<p>Not probed, because their images are missing: {', '.join(missing)}.</p>"] if missing else []
    for metric, title in METRIC_TITLES.items():
        table = render_table(["task", *model_names(results)], side_by_side(results, metric=metric))
        parts.append(
            f"<h2>{title} on the test split, with 95 % intervals (of several seeds: mean ± deviation)</h2>{table}"
        )
    parts.append(_reading(results))
    if comparisons:
        table = render_table(["models", "task", "AUC difference, 95 % interval", "p"], difference_rows(comparisons))
        parts.append(f"<h2>Paired differences</h2>{table}")
    parts.append(published_section([result.task for result in results]))
    rows = [
        [
            result.backbone,
            result.task,
            result.protocol,
            result.seed,
            result.num_train,
            result.num_test,
            ", ".join(f"{key} {value}" for key, value in result.settings.items()),
            str(result.provenance.get("weights", ""))[:16],
            str(result.provenance.get("images", ""))[:16],
        ]
        for result in results
    ]
    columns = ["model", "task", "protocol", "seed", "train", "test", "chosen on validation", "weights", "images"]
    parts.append(f"<h2>What the numbers were made from</h2>{render_table(columns, rows)}")
    return render_page(title="Probe", body="".join(parts), lead=f"{len(results)} results")


def _reading(results: Sequence[ProbeResult]) -> str:
    """How to read the intervals, and what limits the numbers."""
    words = {
        "delong": "DeLong's variance on the logit scale",
        "delong+newcombe": "both DeLong's interval on the logit scale and Newcombe's (few images or a high AUC)",
        "bootstrap": "the percentile bootstrap over the test images",
        "cluster bootstrap": "the bootstrap over whole groups, and at least as wide as if all images were independent",
    }
    used = dict.fromkeys(result.bounds("auc").method for result in results)
    text = f"<p>Intervals of the AUC: {html.escape('; '.join(words[method] for method in used))}."
    text += " Other metrics: the percentile bootstrap.</p>"
    notes = dict.fromkeys(note for result in results for note in result.notes)
    return text + ("<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>" if notes else "")


def published_section(tasks: Sequence[str]) -> str:
    """Published figures of frozen backbones on these tasks as a section of a page; nothing for other tasks."""
    from eval.medmnist.published import published_columns, published_rows

    names = list(dict.fromkeys(tasks))
    rows = published_rows(names)
    if not rows:
        return ""
    return f"<h2>Published figures, other protocols</h2>{render_table(published_columns(names), rows)}"
