"""`biovfm scaling`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from infra.console import emit, stderr
from infra.reports.probe import text_table
from infra.reports.scaling import analyse, write_analysis
from shards.errors import ConfigError

if TYPE_CHECKING:
    from eval.scaling.laws import Slope


def scaling(
    *results: Path,
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
        CSV files with task, algorithm, model, auc or auc_percent; params_total_m, params_encoder_m, num_images,
        data_fraction, modality and seed where known. `biovfm sweep` writes one. A file of means over the tasks by
        pretraining_data, or of model sizes, may stand beside them.
    out
        Folder for tables (CSV), figures (SVG, PNG) and index.html.
    data
        Folder or URL of the MedMNIST archives: adds compressibility and Davies-Bouldin index to the factors.
    size
        Edge of the archive's images in pixels.
    """
    if not results:
        raise ConfigError("no table of results given", hint="biovfm scaling sweep/results.csv")
    analysis = analyse(results, data=data, size=size)
    files = write_analysis(analysis, out)
    if json_:
        emit(
            {
                "slopes": [slope.row() for slope in analysis.slopes],
                "correlations": [item.row() for item in analysis.correlations],
                "files": {name: str(path) for name, path in files.items()},
            }
        )
        return
    sys.stdout.write(_table(analysis.slopes))
    stderr().print(f"page: {files['page']}", markup=False, soft_wrap=True)


def _table(slopes: Sequence[Slope]) -> str:
    rows = [
        [
            slope.task,
            slope.algorithm,
            slope.axis,
            slope.form,
            slope.fixed,
            f"{slope.law.slope:+.4f}"
            + (f" [{slope.law.lower:+.4f}, {slope.law.upper:+.4f}]" if slope.law.num_points > 2 else ""),
            str(slope.law.num_points),
            str(slope.law.num_runs),
        ]
        for slope in slopes
    ]
    return text_table(["task", "algorithm", "over", "form", "held fixed", "slope [95 %]", "places", "runs"], rows)
