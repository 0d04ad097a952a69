"""`biovfm stats`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from infra.console import emit, stderr


def stats(dataset: str, /, *, history: bool = False, json_: Annotated[bool, Parameter(name="--json")] = False) -> None:
    """Count a dataset: samples by modality and source, rejected images by reason, committed jobs.

    Example: `biovfm stats ./data`

    Parameters
    ----------
    dataset
        Folder or URL of the dataset.
    history
        Show its versions instead: when each was committed, by which job, and how large the dataset was after it.
    """
    if history:
        _print_history(dataset, json_=json_)
        return
    from shards.dataset.dataset import Dataset
    from shards.dataset.summary import summarise

    summary = summarise(Dataset.open(dataset))
    if json_:
        emit(summary.as_dict())
    else:
        print_summary(summary)


def _print_history(url: str, *, json_: bool) -> None:
    from dataclasses import asdict

    from shards.dataset import Dataset
    from shards.dataset.history import history as versions

    rows = [asdict(row) for row in versions(Dataset.open(url))]
    if json_:
        emit({"dataset": url, "versions": rows})
    elif rows:
        print_table(f"versions of {url}", rows)
    else:
        stderr().print(f"{url}: nothing was committed yet")


def print_summary(summary: Any) -> None:
    """The figures as tables for people, on standard error."""
    console = stderr()
    console.print(
        f"{summary.url}: version {summary.version}, {summary.num_samples:,} samples in {summary.num_shards:,} shards, "
        f"{summary.num_bytes / 1e6:,.1f} MB of images"
    )
    console.print("encoding: " + ", ".join(f"{name}={value}" for name, value in summary.encoding.items()))
    print_table("samples by modality", summary.by_modality)
    print_table("samples by source", summary.by_source)
    print_table("rejected images by reason", summary.rejects)
    counted = [
        {name: job.get(name, "") for name in ("job_id", "source", "files", "items", "kept", "rejected")}
        for job in summary.jobs
    ]
    print_table("committed jobs (items = kept + rejected)", counted)


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """Rows of equal keys as a table for people, on standard error; nothing where there are none."""
    from rich.table import Table

    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for name, value in rows[0].items():
        table.add_column(name.replace("_", " "), justify="right" if isinstance(value, int) else "left")
    for row in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    stderr().print(table)
