"""The steps of the demo, each a plain call of what the sub-commands call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from infra.console import progress, stderr
from infra.demo.gather import PACKAGES, gather
from shards.dataset.dataset import Dataset
from shards.errors import SourceError

SOURCES: Final = {
    "demo-pydicom": "pydicom",
    "demo-pydicom-data": "pydicom-data",
    "demo-pynetdicom": "pynetdicom",
    "demo-nibabel": "nibabel",
    "demo-mni": "nilearn",
    "demo-fundus": "scikit-image",
    "demo-histology": "scikit-image",
    "demo-nuclei": "stardist",
    "demo-fundus-panels": "fundus-panels",
}
"""Source of the demo → folder of its raw data."""

RADIOLOGY: Final = ("CT", "MR", "X-Ray", "US", "NM")
TASK: Final = "breastmnist"


def fetch(raw: Path) -> None:
    """Gather the raw data."""
    with progress() as bar:
        task = bar.add_task("fetching packages", total=len(PACKAGES), note="")
        gather(raw, progress=lambda name: bar.update(task, advance=1, note=name))
        bar.update(task, completed=len(PACKAGES), note="")


def ingest_all(raw: Path, dataset_url: str, *, workers: int) -> list[dict[str, Any]]:
    """Ingest every source of the demo; returns the jobs' reports."""
    from ingest.job.run import run_job
    from ingest.source.spec import load_spec

    reports = []
    with progress() as bar:
        task = bar.add_task("ingesting", total=len(SOURCES), note="")
        for source, folder in SOURCES.items():
            bar.update(task, note=source)
            spec = load_spec(Path(__file__).parent / "sources" / f"{source}.yaml")
            reports.append(run_job(spec, str(raw / folder), dataset_url, workers=workers).to_dict())
            bar.update(task, advance=1)
        bar.update(task, note="")
    return reports


def pin(dataset: Dataset, lock: Path) -> None:
    """Pin the radiological modalities that are there."""
    from shards.dataset.summary import summarise
    from shards.subset.lock import Selection, create

    there = {row["modality"] for row in summarise(dataset).by_modality}
    create(dataset, Selection(modality=tuple(tag for tag in RADIOLOGY if tag in there))).write(lock)


def stream_epoch(lock: Path, *, size: int = 64, global_batch: int = 64) -> dict[str, Any]:
    """Stream one epoch of the lock and measure it."""
    from infra.measure import Meter
    from shards.decode import Crops
    from shards.stream.stream import Stream

    meter = Meter()
    with Stream(str(lock), crops=(Crops(size_px=size),), global_batch=global_batch, num_epochs=1) as stream:
        for batch in stream:
            meter.batch(len(batch.keys))
        stats = stream.stats()
    return {**meter.result(), "num_bad": stats.num_bad, "bytes_read": stats.bytes_read}


def pretrain_tiny(lock: Path, run: Path, *, steps: int) -> dict[str, Any]:
    """Pretrain the tiny MAE on the lock, or go on where an earlier demo stopped."""
    from train.record import StepReport
    from train.run import load_recipe, pretrain

    recipe = load_recipe("tiny", {"run.steps": steps})
    with progress() as bar:
        task = bar.add_task("pretraining MAE", total=steps, note="")

        def show(report: StepReport) -> None:
            note = f"loss {report.loss:.4f}, {report.images_per_second:,.0f} images/s, stall {report.stall_share:.1%}"
            bar.update(task, completed=report.step, note=note)

        result = pretrain(recipe, data=str(lock), out=run, progress=show)
        bar.update(task, completed=steps)
    return {"steps": result.steps, "seconds": round(result.seconds, 1), "export": str(result.export)}


def probe_both(export: Path) -> list[dict[str, Any]]:
    """Probe the trained network and the same one as training began on real BreastMNIST.

    Returns:
        Rows `model, task, auc, low, high, acc`.

    Raises:
        SourceError: The task is not on this machine and cannot be downloaded.
    """
    from eval.medmnist.data import load_task
    from eval.probes.linear import probe
    from infra.reports.probe_rows import result_row
    from train.run_export import export_run

    root = os.environ.get("BIOVFM_MEDMNIST_ROOT")
    task = load_task(TASK, root=root if root and (Path(root) / f"{TASK}.npz").is_file() else None)
    # not `random:`, which initialises as timm does: MAE begins with sine and cosine positions, which already help
    start = export_run(export.parent, step=0, out=export.parent / "start")
    models = {"MAE, pretrained by the demo": str(export), "the same network, untrained": str(start)}
    return [
        {**result_row(probe(name, [task])[0]), "model": label, "task": f"{TASK} (28 px)"}
        for label, name in models.items()
    ]


def attempt_probe(export: Path, *, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """`probe_both`, or a plain word that it is skipped."""
    try:
        return probe_both(export)
    except SourceError as error:
        say(f"The probe is skipped: {error}")
        stderr().print(f"probe skipped: {error}")
        return []
