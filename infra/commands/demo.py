"""`biovfm demo`."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from infra.commands.stats import print_summary
from infra.console import answer, emit, stderr


def demo(
    *,
    out: Path = Path("demo-out"),
    dataset: str | None = None,
    s3: bool = False,
    steps: int = 400,
    workers: int | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Run the whole pipeline on real images: gather, ingest, pin, stream, pretrain, probe, report.

    The images come out of ordinary Python packages. A second run re-uses what stands.

    Example: `biovfm demo --out demo-out`

    Parameters
    ----------
    out
        Folder of raw data, lock, run and report.
    dataset
        Where the dataset goes, a folder or an object-store URL; inside `out` without it.
    s3
        Start a local S3 server for the length of the demo and keep the dataset there.
    steps
        Pretraining steps.
    workers
        Ingest processes; the number of cores without it.
    """
    with contextlib.ExitStack() as stack:
        url = dataset or (_local_s3(out / "s3", stack) if s3 else str(out / "dataset"))
        result = _run(out, url, steps=steps, workers=workers or os.cpu_count() or 1, json_=json_)
    if json_:
        emit(result)
    else:
        answer(f"done in {result['seconds']} s; the report is {Path(result['report']).absolute()}")


def _local_s3(folder: Path, stack: contextlib.ExitStack) -> str:
    from infra import s3_server

    server = stack.enter_context(s3_server.start(folder))
    os.environ.update(server.env)
    stderr().print(f"a local S3 server keeps the dataset in {folder}")
    return f"{server.make_bucket('biovfm-demo')}/dataset"


def _run(out: Path, url: str, *, steps: int, workers: int, json_: bool) -> dict[str, Any]:
    from infra.demo import steps as demo_steps
    from infra.reports.dataset import build_report
    from shards.dataset.dataset import Dataset
    from shards.dataset.summary import summarise
    from shards.files import write_text

    started = time.monotonic()
    notes = ["Every image on this page comes out of an ordinary Python package; no patient data were added."]
    lock, run, page = out / "radiology.lock.yaml", out / "mae", out / "report.html"
    demo_steps.fetch(out / "raw")
    jobs = demo_steps.ingest_all(out / "raw", url, workers=workers)
    there = Dataset.open(url)
    summary = summarise(there)
    if not json_:
        print_summary(summary)
    demo_steps.pin(there, lock)
    streamed = demo_steps.stream_epoch(lock)
    stderr().print(f"streamed {streamed['images']} images in {streamed['seconds']:,.1f} s")
    trained = demo_steps.pretrain_tiny(lock, run, steps=steps)
    probes = demo_steps.attempt_probe(run / "export", say=notes.append)
    for row in probes:
        stderr().print(f"{row['task']}: AUC {row['auc']:.4f} ({row['low']:.3f} to {row['high']:.3f}), {row['model']}")
    text = build_report(there, lock=lock, run=run, probes=probes, stream=streamed, notes=notes, title="biovfm demo")
    write_text(page, text)
    return {
        "report": str(page),
        "dataset": there.url,
        "version": summary.version,
        "samples": summary.num_samples,
        "modalities": {row["modality"]: row["samples"] for row in summary.by_modality},
        "jobs": jobs,
        "stream": streamed,
        "pretrain": trained,
        "probe": probes,
        "seconds": round(time.monotonic() - started, 1),
    }
