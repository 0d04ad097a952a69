"""The tables of a dataset: atomic, idempotent, safe under two writers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.errors import SampleIndexError
from shards.schema import INDEX_COLUMNS, index_schema, rejects_schema
from shards.subset.chosen import choose
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


@pytest.mark.slow
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
    newest = dataset.version()
    for number in (77, newest + 1, -3, 1 << 70):
        with pytest.raises(SampleIndexError, match=f"has no version {number}; the newest is {newest} — "):
            dataset.table("index", version=number)
    with pytest.raises(SampleIndexError, match="no version of rejects/ with the number 77; the newest is"):
        dataset.table("rejects", version=77)


def test_a_question_finds_the_tables_it_names(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    found = dataset.query("SELECT modality, count(*) AS num FROM samples WHERE key <> ? GROUP BY 1", params=["none"])
    counts = dict(zip(*(column.to_pylist() for column in found.columns), strict=True))
    assert counts.keys() == {"CT", "US", "Fundus"}
    wanted = pa.table({"modality": ["US"]})
    joined = dataset.query("SELECT count(*) AS num FROM samples JOIN wanted USING (modality)", wanted=wanted)
    assert joined["num"].to_pylist() == [counts["US"]]


def test_a_question_sees_the_version_that_is_asked_for(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    sql = "SELECT DISTINCT modality FROM samples"
    assert dataset.query(sql, version=0)["modality"].to_pylist() == ["CT"]
    assert sorted(dataset.query(sql)["modality"].to_pylist()) == ["CT", "Fundus", "US"]
    with pytest.raises(SampleIndexError, match="version 9"):
        dataset.query(sql, version=9)


def test_tables_that_are_not_there_yet_are_empty_to_a_question(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    for name in ("samples", "fingerprints", "rejects"):
        assert dataset.query(f"SELECT * FROM {name}").num_rows == 0
    with pytest.raises(SampleIndexError, match="no samples yet"):
        dataset.samples_table()
    with pytest.raises(SampleIndexError, match="no samples yet"), dataset.database("samples", version=-1):
        pass


def test_a_question_reaches_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(duckdb.Error, match="disabled"):
        Dataset.create(str(tmp_path / "data")).query(f"SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')")


def test_a_dataset_keeps_the_id_that_it_got_when_it_was_made(tmp_path: Path) -> None:
    first, other = (Dataset.create(str(tmp_path / name)) for name in ("first", "other"))
    assert first.id
    assert first.id != other.id
    moved = (tmp_path / "first").rename(tmp_path / "moved")
    assert Dataset.open(str(moved)).id == first.id
    assert Dataset.create(str(moved)).id == first.id


def test_a_dataset_of_an_earlier_release_has_no_id(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    settings = {name: value for name, value in dataset.settings.items() if name != "dataset_id"}
    (tmp_path / "dataset.json").write_text(json.dumps(settings))
    assert Dataset.open(str(tmp_path)).id is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"format_version": 1, "encoding": 7}'])
def test_damaged_settings_are_one_line(tmp_path: Path, text: bytes) -> None:
    dataset = small_dataset(tmp_path / "d")
    (tmp_path / "d" / "dataset.json").write_bytes(text)
    with pytest.raises(SampleIndexError, match=r"d/dataset\.json is damaged"):
        Dataset.open(dataset.url)


def test_a_damaged_table_is_not_laid_at_the_predicate(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    file = next((tmp_path / "d" / "index").rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(SampleIndexError, match="biovfm verify --deep"):
        choose(dataset, dataset.version(), "width > 3")


def test_an_empty_entry_of_the_log_is_no_commit_of_nothing(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    newest = max((tmp_path / "data/index/_delta_log").glob("*.json"))
    newest.write_bytes(b"")
    for ask in (dataset.version, dataset.jobs, lambda: dataset.query("SELECT 1 FROM samples")):
        with pytest.raises(SampleIndexError, match=f"{newest.name} is empty"):
            ask()
    assert [problem.kind for problem in verify(dataset).problems] == ["table"]


def test_a_damaged_entry_of_the_log_is_named(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    newest = max((tmp_path / "data/index/_delta_log").glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(SampleIndexError, match=f"{newest.name} is damaged"):
        dataset.version()


def test_samples_without_their_settings_are_no_new_dataset(tmp_path: Path) -> None:
    small_dataset(tmp_path / "data")
    (tmp_path / "data/dataset.json").unlink()
    with pytest.raises(SampleIndexError, match=r"dataset.json is gone"):
        Dataset.find(str(tmp_path / "data"))
    assert Dataset.find(str(tmp_path / "other")) is None
