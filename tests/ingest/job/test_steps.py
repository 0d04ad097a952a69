"""The steps behind the map step, one by one, on a job that was stopped before them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from ingest.engines.local import LocalEngine
from ingest.job.commit import index_rows, kept_prints, raw_file_rows, reject_rows
from ingest.job.promote import plan_packs, promote
from ingest.job.resolve import resolve_exact
from ingest.job.run import run_job
from ingest.job.settle import settle
from ingest.picture.encoding import Encoding
from ingest.settings import IngestSettings
from ingest.staging.context import MapContext
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from shards.dataset.dataset import Dataset
from tests.ingest.material import encoded, photo, public_spec, write_folder

SETTINGS = IngestSettings(unit_files=3, dedup={"near": False})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A job whose units are mapped and nothing else."""

    dataset: Dataset
    context: MapContext
    staging: Staging
    units: list[UnitReport]


@pytest.fixture
def stopped(tmp_path: Path) -> Stopped:
    files = {f"{n}.png": encoded(photo(n % 4)) for n in range(6)}  # 4 and 5 are copies of 0 and 1
    raw = write_folder(tmp_path / "raw", {**files, "small.png": encoded(photo(9, height=8, width=8))})

    def stop(now: object) -> None:
        if getattr(now, "stage", "") == "resolve":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, settings=SETTINGS, progress=stop)
    (folder,) = (tmp_path / "d" / "staging").iterdir()
    context = MapContext(
        spec=public_spec(),
        settings=SETTINGS,
        encoding=Encoding(),
        raw_url=str(raw),
        dataset_url=str(tmp_path / "d"),
        job_id=folder.name,
    )
    staging = context.staging()
    units = [report for _, report in sorted(staging.reports().items())]
    return Stopped(dataset=Dataset.open(str(tmp_path / "d")), context=context, staging=staging, units=units)


def rows(batches: Iterator[pa.RecordBatch]) -> list[dict[str, object]]:
    return [row for batch in batches for row in batch.to_pylist()]


def test_the_first_of_equal_images_stays(stopped: Stopped) -> None:
    resolution = resolve_exact(stopped.dataset, stopped.staging, stopped.units, SecretStr(""))
    assert sum(unit.kept for unit in stopped.units) == 6
    assert {unit: sorted(drops) for unit, drops in resolution.drops.items()} == {1: [1, 2]}
    assert {reason for reason, _ in resolution.rejected(1).values()} == {"duplicate"}


def test_every_kept_row_is_in_one_pack_and_in_one_row_of_the_index(stopped: Stopped) -> None:
    staging, units = stopped.staging, stopped.units
    resolution = resolve_exact(stopped.dataset, staging, units, SecretStr(""))
    packs = plan_packs(staging, stopped.context, units, resolution)
    assert sum(len(piece.rows) for pack in packs for piece in pack.pieces) == 4
    promoted = promote(LocalEngine(0), stopped.context, staging, units=units, packs=packs, tell=lambda _: None)
    index = rows(index_rows(staging, packs, promoted, units))
    assert [row["raw_path"] for row in index] == ["0.png", "1.png", "2.png", "3.png"]
    assert {row["shard"] for row in index} == {done.shard for done in promoted.values()}
    assert len(rows(kept_prints(staging, units, resolution))) == 4


def test_rejects_are_those_of_the_map_step_and_then_the_dropped(stopped: Stopped) -> None:
    resolution = resolve_exact(stopped.dataset, stopped.staging, stopped.units, SecretStr(""))
    found = rows(reject_rows(stopped.staging, stopped.units, resolution))
    assert [row["raw_path"] for row in found] == ["small.png", "4.png", "5.png"]
    assert [row["reason"] for row in found][1:] == ["duplicate", "duplicate"]
    assert len(rows(raw_file_rows(stopped.staging, stopped.units))) == 7


def test_settling_resolves_and_promotes_once_where_nobody_else_commits(stopped: Stopped) -> None:
    stages: list[str] = []
    settled = settle(
        LocalEngine(0),
        stopped.dataset,
        stopped.context,
        stopped.staging,
        units=stopped.units,
        tell=lambda now: stages.append(now.stage),
    )
    assert not settled.crowded
    assert stages.count("resolve") == 1
    assert set(settled.promoted) == {pack.index for pack in settled.packs}
