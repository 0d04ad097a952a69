"""`biovfm report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from infra.commands._probing import check_writable
from infra.console import emit
from shards.errors import ConfigError


def report(
    dataset_or_lock: str,
    /,
    *,
    dataset: str | None = None,
    out: Path = Path("report.html"),
    lock: Path | None = None,
    run: Path | None = None,
    results: str | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Write one self-contained page: counts, contact sheets, rejects and, where given, a training run and its probes.

    Example: `biovfm report ./data --run runs/mae --results results.jsonl --out report.html`

    Parameters
    ----------
    dataset_or_lock
        Folder or URL of the dataset, or a lock file, which is described with its dataset.
    dataset
        Where the lock's dataset lies now; where the lock says, without it.
    out
        The page to write.
    lock
        A lock file to describe.
    run
        A run folder of `biovfm pretrain`.
    results
        JSON lines of `biovfm probe`, or the URL that it was given as --out.
    """
    from infra.reports.dataset import build_report
    from infra.reports.probe_rows import result_rows
    from shards.dataset.dataset import Dataset
    from shards.files import write_text
    from shards.subset.lock import Lock, is_lock

    check_writable(out, option="--out")
    if run is not None:
        _check_run(run)
    probes = result_rows(results) if results else []
    if is_lock(dataset_or_lock):
        lock, url = Path(dataset_or_lock), dataset or Lock.read(dataset_or_lock).dataset
    else:
        url = dataset or dataset_or_lock
    page = build_report(Dataset.open(url), lock=lock, run=run, probes=probes)
    write_text(out, page)
    if json_:
        emit({"report": str(out), "bytes": len(page.encode())})
    else:
        sys.stdout.write(f"{out}\n")


def _check_run(run: Path) -> None:
    """Refuse a folder without the figures of a training run.

    Raises:
        ConfigError: There is no such folder, or no run in it.
    """
    if not run.is_dir():
        raise ConfigError(f"there is no run folder {run}", hint="pass the --out folder of `biovfm pretrain`")
    metrics = run / "metrics.jsonl"
    if not metrics.is_file() or not metrics.stat().st_size:
        raise ConfigError(
            f"{run} holds no training run ({metrics.name} is missing or empty)",
            hint="pass the --out folder of `biovfm pretrain`",
        )
