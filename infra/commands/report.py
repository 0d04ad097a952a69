"""`biovfm report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra.console import emit, stderr


def report(
    dataset: str,
    /,
    *,
    out: Path = Path("report.html"),
    lock: Path | None = None,
    run: Path | None = None,
    results: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Write one self-contained page: counts, contact sheets, rejects and, where given, a training run and its probes.

    Example: `biovfm report ./data --run runs/mae --results results.jsonl --out report.html`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    out
        The page to write.
    lock
        A lock file to describe.
    run
        A run folder of `biovfm pretrain`.
    results
        JSON lines of `biovfm probe`.
    """
    from infra.reports.dataset import build_report
    from infra.reports.probe_rows import read_results
    from shards.dataset.dataset import Dataset
    from shards.files import write_text

    probes = read_results(results) if results else []
    page = build_report(Dataset.open(dataset), lock=lock, run=run, probes=probes)
    write_text(out, page)
    if json_:
        emit({"report": str(out), "bytes": len(page)})
    else:
        stderr().print(f"wrote {out}")
