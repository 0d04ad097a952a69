"""Counters are of this process, gauges of its share of the job: over the tasks they add up to the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from infra.metrics.ingesting import IngestFigures
from ingest.job.report import Progress
from ingest.job.run import run_job
from ingest.job.share import Share
from ingest.settings import IngestSettings
from tests.ingest.material import encoded, photo, public_spec, write_folder

SETTINGS = IngestSettings(unit_files=4, dedup={"near": False})
COUNTERS = ("raw_files_read_total", "images_total", "items_total kept", "items_total rejected")
GAUGES = ("raw_files", "raw_files_done")


class StopHereError(Exception):
    """The process goes away."""


def figures(registry: CollectorRegistry) -> dict[str, float]:
    """Name after `biovfm_ingest_`, and outcome → value."""
    return {
        " ".join([sample.name.removeprefix("biovfm_ingest_"), *filter(None, [sample.labels.get("outcome")])]): (
            sample.value
        )
        for family in registry.collect()
        for sample in family.samples
    }


def run(folder: Path, share: Share | None, *, stop_at: int | None = None) -> dict[str, float]:
    """The figures of one process."""
    registry = CollectorRegistry()
    watch = IngestFigures(registry, source="test")

    def seen(now: Progress) -> None:
        watch(now)
        if stop_at is not None and now.done >= stop_at:
            raise StopHereError

    arguments: dict[str, Any] = {"workers": 0, "settings": SETTINGS, "share": share, "progress": seen}
    if stop_at is None:
        run_job(public_spec(), str(folder / "raw"), str(folder / "d"), **arguments)
    else:
        with pytest.raises(StopHereError):
            run_job(public_spec(), str(folder / "raw"), str(folder / "d"), **arguments)
    return figures(registry)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {f"{number:02d}.png": encoded(photo(number)) for number in range(28)}
    write_folder(tmp_path / "raw", files | {"28.png": b"x", "29.png": encoded(photo(29, height=8, width=8))})
    return tmp_path


@pytest.mark.slow
def test_tasks_add_up_to_the_job(folder: Path) -> None:
    tasks = [run(folder, Share(num_tasks=3, task_index=index)) for index in (2, 0, 1)]
    assert [task["raw_files_read_total"] for task in tasks] == [8, 12, 10]
    assert [sum(task[name] for task in tasks) for name in COUNTERS] == [30, 30, 28, 2]
    assert [sum(task[name] for task in tasks) for name in GAUGES] == [30, 30]
    assert all(task["raw_files"] == task["raw_files_done"] for task in tasks)


@pytest.mark.slow
@pytest.mark.parametrize("share", [None, Share(num_tasks=2, task_index=1)], ids=["alone", "shared"])
def test_a_process_that_goes_on_begins_to_count_at_zero(folder: Path, share: Share | None) -> None:
    first = run(folder, share, stop_at=8)
    second = run(folder, share)
    total = 30 if share is None else 14
    assert first["raw_files_done"] == first["raw_files_read_total"] == 8
    assert first["raw_files"] == second["raw_files"] == second["raw_files_done"] == total
    assert second["raw_files_read_total"] == total - 8
    assert first["images_total"] + second["images_total"] == total


def test_nothing_is_said_before_it_is_known() -> None:
    registry = CollectorRegistry()
    watch = IngestFigures(registry, source="test")
    watch(Progress(stage="list"))
    assert not [name for name in figures(registry) if name.startswith(("raw_files_done", "last_"))]
    assert "raw_files" not in figures(registry)
    watch(Progress(stage="map", total=9))
    assert figures(registry)["raw_files"] == 9
