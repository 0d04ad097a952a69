"""Probe results for people and programs: tables, one JSON object, one page."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from infra.console import emit
from infra.web.html import render_page, render_table

if TYPE_CHECKING:
    from eval.probes.linear import ProbeResult
    from eval.probes.results import Comparison

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
    out: Path | None,
    json_: bool,
) -> None:
    """Print the table (or one JSON object) and write the page."""
    from eval.probes.results import compare

    comparisons = compare(results) if len({result.backbone for result in results}) > 1 else []
    if page:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(probe_page(results, comparisons, missing=missing), encoding="utf-8")
    if json_:
        emit(
            {
                "results": [result.record() for result in results],
                "comparisons": [comparison.record() for comparison in comparisons],
                "missing_tasks": list(missing),
                "results_file": str(out) if out else None,
                "page": str(page) if page else None,
            }
        )
        return
    sys.stdout.write(probe_text(results, comparisons, missing=missing))


def probe_text(
    results: Sequence[ProbeResult],
    comparisons: Sequence[Comparison],
    *,
    missing: Sequence[str],
) -> str:
    """Tables for a terminal."""
    from eval.probes.results import model_names, side_by_side

    names = model_names(results)
    parts = [
        text_table([METRIC_TITLES[metric], *map(short, names)], side_by_side(results, metric=metric))
        for metric in TERMINAL_METRICS
    ]
    if comparisons:
        parts.append(text_table(["AUC difference", "task", "95 % interval", "p"], difference_rows(comparisons)))
    if missing:
        parts.append(f"missing, not probed: {', '.join(missing)}\n")
    return "\n".join(parts)


def difference_rows(comparisons: Sequence[Comparison]) -> list[list[str]]:
    """One row a comparison."""
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
    """One self-contained page: metric tables, differences, and what each number was made from."""
    from eval.probes.results import model_names, side_by_side

    parts = [f"<p>Not probed, because their images are missing: {', '.join(missing)}.</p>"] if missing else []
    for metric, title in METRIC_TITLES.items():
        table = render_table(["task", *model_names(results)], side_by_side(results, metric=metric))
        parts.append(f"<h2>{title} on the test split, with 95 % bootstrap intervals</h2>{table}")
    if comparisons:
        table = render_table(["models", "task", "AUC difference, 95 % interval", "p"], difference_rows(comparisons))
        parts.append(f"<h2>Paired differences</h2>{table}")
    rows = [
        [
            result.backbone,
            result.task,
            result.protocol,
            result.num_train,
            result.num_test,
            ", ".join(f"{key} {value}" for key, value in result.settings.items()),
            str(result.provenance.get("weights", ""))[:16],
            str(result.provenance.get("images", ""))[:16],
        ]
        for result in results
    ]
    columns = ["model", "task", "protocol", "train", "test", "chosen on validation", "weights", "images"]
    parts.append(f"<h2>What the numbers were made from</h2>{render_table(columns, rows)}")
    return render_page(title="Probe", body="".join(parts), lead=f"{len(results)} results on MedMNIST")
