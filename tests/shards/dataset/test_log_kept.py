"""The log of a table outlives its thirty days: old versions open and jobs are listed, whoever makes a checkpoint."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from ingest.job.concede import concede_duplicates
from shards.dataset import table_files
from shards.dataset.columns import column_table, write_columns
from shards.dataset.compact import compact
from shards.dataset.dataset import Dataset
from shards.dataset.history import history
from shards.dataset.table_files import LOG_PROPERTIES
from shards.dataset.vacuum import vacuum
from shards.subset import Selection, create
from shards.subset.finding import find
from tests.shards.builders import add_source, jpeg

pytestmark = pytest.mark.slow


def age_logs(dataset: Dataset) -> None:
    """Let all entries of the logs be ninety days old."""
    then = time.time() - 90 * 86_400
    for path in Path(dataset.url).glob("*/_delta_log/*"):
        os.utime(path, (then, then))


def make_checkpoints_often(dataset: Dataset, name: str) -> None:
    table = dataset.table(name)
    assert table is not None
    table.alter.set_table_properties({"delta.checkpointInterval": "2"})


def ages(dataset: Dataset, start: int) -> pa.Table:
    keys = dataset.query("SELECT key FROM samples ORDER BY key")["key"].to_pylist()
    return pa.table({"key": keys, "age": pa.array(range(start, start + len(keys)), pa.int64())})


@pytest.mark.parametrize("made_by", ["this release", "an earlier one"])
def test_jobs_history_and_versions_of_the_index_stay(
    tmp_path: Path, made_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if made_by == "an earlier one":
            patch.setattr(table_files, "LOG_PROPERTIES", {})
        dataset = Dataset.create(str(tmp_path / "d"))
        add_source(dataset, "a", "US", [jpeg(0)], job_id="job-0")
    make_checkpoints_often(dataset, "index")
    for number in range(1, 7):
        age_logs(dataset)
        add_source(dataset, "a", "US", [jpeg(number)], job_id=f"job-{number}")
    age_logs(dataset)
    add_source(dataset, "a", "US", [jpeg(3), jpeg(50)], job_id="twice")
    concede_duplicates(dataset, "twice")
    assert list(Path(dataset.url).glob("index/_delta_log/*.checkpoint.parquet"))
    assert [job["job_id"] for job in dataset.jobs()] == [*(f"job-{number}" for number in range(7)), "twice"]
    assert [version.num_samples for version in history(dataset)][:3] == [1, 1, 2]
    assert len(dataset.query("SELECT key FROM samples", version=0)) == 1


def test_pinned_columns_outlive_checkpoints_vacuum_and_compaction(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "d"))
    add_source(dataset, "a", "US", [jpeg(number) for number in range(6)], per_shard=2)
    write_columns(dataset, ages(dataset, 0), note={})
    lock = create(dataset, Selection(where="age >= 2"))
    make_checkpoints_often(dataset, "columns")
    for number in range(1, 7):
        age_logs(dataset)
        write_columns(dataset, ages(dataset, 10 * number), replace=True, note={})
    for path in Path(dataset.url).rglob("*"):
        os.utime(path, (0, time.time() - 90 * 86_400))
    compact(dataset)
    vacuum(dataset, keep_days=0, orphan_hours=0)
    assert list(Path(dataset.url).glob("columns/_delta_log/*.checkpoint.parquet"))
    assert lock.columns_version == 0
    found = find(lock, dataset)
    assert found.chosen.num_samples == 4


def test_other_programs_leave_the_log_alone(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "d"))
    add_source(dataset, "a", "US", [jpeg(0)])
    write_columns(dataset, ages(dataset, 0), note={})
    make_checkpoints_often(dataset, "columns")
    for _ in range(4):
        age_logs(dataset)
        write_deltalake(dataset.table_url("columns"), ages(dataset, 1), mode="overwrite")
    DeltaTable(dataset.table_url("columns")).cleanup_metadata()
    assert column_table(dataset, 0) is not None


def test_a_compaction_brings_the_properties_to_tables_of_an_earlier_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(table_files, "LOG_PROPERTIES", {})
        dataset = Dataset.create(str(tmp_path / "d"))
        add_source(dataset, "a", "US", [jpeg(0)])
    for _ in range(2):
        compact(dataset)
        table = dataset.table("index")
        assert table is not None
        assert LOG_PROPERTIES.items() <= table.metadata().configuration.items()
        assert table.version() == 1
