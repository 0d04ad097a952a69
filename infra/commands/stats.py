"""`biovfm stats`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from infra.console import answer, answer_table, emit, number


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
        answer_table(f"versions of {url}", rows)
    else:
        answer(f"{url}: nothing was committed yet")


def print_summary(summary: Any) -> None:
    """The figures as tables for people."""
    answer(
        f"{summary.url}: version {summary.version}, {number(summary.num_samples, 'sample')} in "
        f"{number(summary.num_shards, 'shard')}, {summary.num_bytes / 1e6:,.1f} MB of images"
    )
    answer("encoding: " + ", ".join(f"{name}={value}" for name, value in summary.encoding.items()))
    answer_table("samples by modality", summary.by_modality)
    answer_table("samples by source", summary.by_source)
    answer_table("columns of your own", summary.columns)
    answer_table("rejected images by reason", summary.rejects)
    counted = [
        {name: job.get(name, "") for name in ("job_id", "source", "files", "items", "kept", "rejected")}
        for job in summary.jobs
    ]
    answer_table("committed jobs (items = kept + rejected)", counted)
