"""The tables of a dataset: atomic, idempotent, safe under two writers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shards.dataset.dataset import Dataset
from shards.errors import SampleIndexError
from shards.schema import INDEX_COLUMNS, index_schema, rejects_schema
from tests.shards.builders import add_source, jpeg, small_dataset


def test_every_job_is_one_version(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    assert dataset.version() == 2
    assert [job["job_id"] for job in dataset.jobs()] == ["alpha-CT", "beta-US", "gamma-Fundus"]
    table = dataset.table("index")
    assert table is not None
    columns = table.to_pyarrow_table().column_names
    assert sorted(columns) == sorted(INDEX_COLUMNS)


def test_a_job_commits_once(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    rows = index_schema().empty_table()
    assert dataset.commit(job_id="alpha-CT", rows=rows, rejects=rejects_schema().empty_table()) == 2
    assert dataset.has_job("alpha-CT")
    assert not dataset.has_job("delta-CT")


def test_a_job_without_samples_is_remembered(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    dataset.commit(job_id="none", rows=index_schema().empty_table(), rejects=rejects_schema().empty_table())
    assert dataset.has_job("none")
    assert dataset.version() == 0


def test_pixels_are_found(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    assert dataset.find_pixels(["00"]) == {}
    (key,) = add_source(dataset, "alpha", "CT", [jpeg(1)])
    table = dataset.table("index")
    assert table is not None
    (digest,) = table.to_pyarrow_table()["pixel_sha256"].to_pylist()
    assert dataset.find_pixels([digest, "00"]) == {digest: key}


def test_writers_at_the_same_time_all_land(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    add_source(dataset, "first", "CT", [jpeg(0)])

    def write(number: int) -> None:
        add_source(Dataset.open(dataset.url), f"s{number}", "US", [jpeg(number + 1)])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    table = dataset.table("index")
    assert table is not None
    assert sorted(table.to_pyarrow_table()["source"].to_pylist()) == ["first", "s0", "s1", "s2", "s3", "s4", "s5"]
    assert dataset.version() == 6


def test_an_existing_dataset_keeps_its_policy(tmp_path: Path) -> None:
    Dataset.create(str(tmp_path / "data"), encoding={"jpeg_quality": 90})
    assert Dataset.create(str(tmp_path / "data")).settings["encoding"]["jpeg_quality"] == 90


def test_what_is_no_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(SampleIndexError, match="no dataset at"):
        Dataset.open(str(tmp_path))
    (tmp_path / "dataset.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(SampleIndexError, match="format version 99"):
        Dataset.open(str(tmp_path))


def test_a_version_that_is_not_there_says_so(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    with pytest.raises(SampleIndexError, match="version 77"):
        dataset.table("index", version=77)
