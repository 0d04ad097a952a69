"""`biovfm scaling`."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from infra.console import emit, stderr
from infra.report_probe import text_table
from infra.report_scaling import Analysis, write_analysis

if TYPE_CHECKING:
    from eval.scaling import Slope


def scaling(
    results: Path,
    /,
    *,
    out: Path = Path("scaling"),
    data: str | None = None,
    size: int = 28,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Fit power laws over model size, data size and modality mix, and see what their slopes go with.

    Example: `biovfm scaling sweep/results.csv --data ~/medmnist --out scaling`

    Parameters
    ----------
    results
        CSV with task, algorithm, model, auc or auc_percent; params_total_m, params_encoder_m, num_images,
        data_fraction, modality and seed where known. `biovfm sweep` writes one.
    out
        Folder for tables (CSV), figures (SVG, PNG) and index.html.
    data
        Folder or URL of the MedMNIST archives: adds compressibility and Davies-Bouldin index to the factors.
    size
        Edge of the archive's images in pixels.
    """
    from eval.scaling import correlate, fit_slopes, read_measurements

    measurements = read_measurements(results)
    slopes = fit_slopes(measurements)
    factors = _factors(sorted({point.task for point in measurements}), data=data, size=size)
    analysis = Analysis(
        source=results.name,
        measurements=measurements,
        slopes=slopes,
        factors=factors,
        correlations=correlate(slopes, factors),
    )
    files = write_analysis(analysis, out)
    if json_:
        emit(
            {
                "slopes": [slope.row() for slope in slopes],
                "correlations": [item.row() for item in analysis.correlations],
                "files": {name: str(path) for name, path in files.items()},
            }
        )
        return
    sys.stdout.write(_table(slopes))
    stderr().print(f"page: {files['page']}")


def _factors(tasks: list[str], *, data: str | None, size: int) -> list[dict[str, Any]]:
    """Properties of the MedMNIST tasks among `tasks`; those of images are `nan` where there is no image."""
    from eval.complexity import known_factors, task_factors
    from eval.medmnist import TaskNotFoundError, load_task
    from eval.tasks import TASKS

    rows: list[dict[str, Any]] = []
    for task in (task for task in TASKS if task in tasks):
        unknown = {"gzip_ratio": math.nan, "davies_bouldin": math.nan} if data else {}
        try:
            rows.append(task_factors(load_task(task, size=size, root=data)) if data else known_factors(task))
        except TaskNotFoundError as error:
            stderr().print(f"no images: {error.message}")
            rows.append({**known_factors(task), **unknown})
    return rows


def _table(slopes: list[Slope]) -> str:
    rows = [
        [
            slope.task,
            slope.algorithm,
            slope.axis,
            slope.form,
            f"{slope.law.slope:+.4f} [{slope.law.lower:+.4f}, {slope.law.upper:+.4f}]",
            str(slope.law.num_points),
        ]
        for slope in slopes
    ]
    return text_table(["task", "algorithm", "over", "form", "slope [95 %]", "points"], rows)
