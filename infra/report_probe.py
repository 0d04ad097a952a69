"""What `biovfm probe` and `biovfm knn` share: find the tasks, run, keep the results, show them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra.console import emit, progress, stderr
from infra.pages import render_page, render_table
from shards.errors import ConfigError, TaskNotFoundError

if TYPE_CHECKING:
    from eval.features import Report
    from eval.medmnist import Task
    from eval.probe import ProbeResult
    from eval.results import Comparison

METRIC_TITLES: Final = {
    "auc": "AUC",
    "acc": "ACC",
    "balanced_accuracy": "balanced accuracy",
    "f1_macro": "macro F1",
    "mcc": "Matthews correlation",
}
"""Metrics of the page; the terminal shows the first two."""
TERMINAL_METRICS: Final = ("auc", "acc")

Classify = Callable[[str, "Task", "Report"], "list[ProbeResult]"]


def pick_device(device: str) -> str:
    """`auto` is the GPU where there is one."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def find_tasks(
    tasks: str, *, data: str | None, size: int, skip_missing: bool
) -> tuple[dict[str, Callable[[], Task]], list[str]]:
    """How to load each task that was asked for and is there, and the names of those that are missing.

    Raises:
        TaskNotFoundError: A task is missing and `skip_missing` is not set.
        ConfigError: All of them are missing.
    """
    from eval.medmnist import find_archive, load_task, task_names

    found: dict[str, Callable[[], Task]] = {}
    missing: list[str] = []
    for name in task_names(tasks):
        try:
            find_archive(name, size=size, root=data)
            found[name] = partial(load_task, name, size=size, root=data)
        except TaskNotFoundError as error:
            if not skip_missing:
                raise
            missing.append(name)
            stderr().print(f"skipped: {error.message}")
    if not found:
        raise ConfigError(f"none of the tasks could be found: {', '.join(missing)}", hint="pass --data FOLDER")
    return found, missing


def run_all(
    checkpoints: Sequence[str],
    load: Mapping[str, Callable[[], Task]],
    classify: Classify,
    *,
    out: Path | None,
    quiet: bool,
) -> list[ProbeResult]:
    """Every checkpoint on every task, one task in memory at a time; results are kept as they come."""
    from eval.results import append_results

    results: list[ProbeResult] = []
    with progress(disable=quiet) as bar:
        for checkpoint in checkpoints:
            for name, load_task in load.items():
                line = bar.add_task(f"{name} · {short(checkpoint)}", total=None, note="features")

                def report(done: int, total: int, line: Any = line) -> None:
                    bar.update(line, completed=done, total=total)

                new = classify(checkpoint, load_task(), report)
                bar.update(line, note=f"AUC {new[0].metrics['auc'].value:.3f}")
                results += new
                if out:
                    append_results(out, new)
    return results


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
    from eval.results import compare

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
    from eval.results import model_names, side_by_side

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
    from eval.results import model_names, side_by_side

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
