"""The data files of the tables: their names, bounds and sizes, and commits that are repeated or meet."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from shards.dataset import table_files as data_files
from shards.dataset.dataset import Dataset
from shards.dataset.query import scan
from shards.dataset.table_files import write_files
from shards.dataset.verify import remove_orphans, verify
from shards.errors import SampleIndexError, StoreError
from shards.schema import index_schema, rejects_schema
from shards.store import LocalStore, open_store
from tests.shards.builders import add_source, jpeg

PLACES = [("CT", "a"), ("CT", "a"), ("CT", "b"), ("US", "a"), ("US", "a")]


def rows_of(places: list[tuple[str, str]] = PLACES, *, job_id: str = "job") -> pa.Table:
    blank = {field.name: "" if field.type == pa.string() else 0 for field in index_schema()}
    rows = [
        {
            **blank,
            "key": f"k{i}",
            "modality": tag,
            "source": source,
            "width": i,
            "raw_path": "p" * 100,
            "job_id": job_id,
        }
        for i, (tag, source) in enumerate(places)
    ]
    return pa.Table.from_pylist([row | {"job_id": job_id} for row in rows], schema=index_schema())


def write(folder: Path, table: pa.Table, partition_by: tuple[str, ...] = ("modality", "source")) -> list[Path]:
    actions = write_files(open_store(str(folder)), "t", "job", table.to_reader(2), partition_by)
    return [folder / "t" / action.path for action in actions]


def commit(dataset: Dataset, job_id: str, rows: pa.Table) -> int:
    return dataset.commit(job_id=job_id, rows=rows, rejects=rejects_schema().empty_table())


def test_one_file_for_each_partition_with_bounds(tmp_path: Path) -> None:
    actions = write_files(open_store(str(tmp_path)), "t", "job", rows_of().to_reader(2), ("modality", "source"))
    assert [action.partition_values for action in actions] == [
        {"modality": "CT", "source": "a"},
        {"modality": "CT", "source": "b"},
        {"modality": "US", "source": "a"},
    ]
    assert [action.path.rpartition("/")[0] for action in actions] == [
        "modality=CT/source=a",
        "modality=CT/source=b",
        "modality=US/source=a",
    ]
    stats = json.loads(actions[2].stats)
    assert (stats["numRecords"], stats["minValues"]["key"], stats["maxValues"]["width"]) == (2, "k3", 4)
    assert not {"raw_path", "window_center"} & set(stats["maxValues"])
    assert all(action.size == (tmp_path / "t" / action.path).stat().st_size for action in actions)


def test_a_repeated_try_makes_the_same_files(tmp_path: Path) -> None:
    first = write(tmp_path, rows_of())
    assert write(tmp_path, rows_of()) == first
    other = write(tmp_path, rows_of(PLACES[:4]))
    assert other[:2] == first[:2]
    assert other[2] != first[2]


def test_rows_of_a_batch_stay_in_order_over_groups_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_files, "GROUP_BYTES", 1)
    monkeypatch.setattr(data_files, "FILE_BYTES", 1)
    files = write(tmp_path, rows_of(PLACES * 3), ())
    assert len(files) == 8
    assert [pq.ParquetFile(file).num_row_groups for file in files] == [1] * 8
    monkeypatch.setattr(data_files, "FILE_BYTES", 1 << 20)
    (whole,) = write(tmp_path / "other", rows_of(PLACES * 3), ())
    assert pq.ParquetFile(whole).num_row_groups == 8
    keys = [key for file in files for key in pq.ParquetFile(file).read(["key"])["key"].to_pylist()]
    assert keys == pq.ParquetFile(whole).read(["key"])["key"].to_pylist() == [f"k{i}" for i in range(15)]


def test_a_query_opens_the_files_it_needs_alone(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    commit(dataset, "one", rows_of(job_id="one"))
    commit(dataset, "two", rows_of(job_id="two"))
    table = dataset.table("index")
    assert table is not None
    everything = scan(table)
    assert len(list(everything.get_fragments())) == 6
    assert len(list(everything.get_fragments(filter=ds.field("modality").isin(["US"])))) == 2
    assert len(list(everything.get_fragments(filter=ds.field("source") == "b"))) == 2
    assert len(list(everything.get_fragments(filter=ds.field("job_id") == "two"))) == 3
    assert everything.to_table(filter=ds.field("modality") == "US")["key"].to_pylist() == ["k3", "k4"] * 2


def test_names_that_a_path_cannot_hold_come_back(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    commit(dataset, "a/b c%", rows_of([("X ray/50%", "a b")]))
    table = dataset.table("index")
    assert table is not None
    (row,) = scan(table).to_table().to_pylist()
    assert (row["modality"], row["source"]) == ("X ray/50%", "a b")
    assert verify(dataset).orphans == ()


def test_a_table_of_other_columns_is_left_alone(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    commit(dataset, "one", rows_of())
    with pytest.raises(SampleIndexError, match="other columns"):
        dataset.commit(
            job_id="two",
            rows=rows_of(),
            rejects=lambda: pa.table({"reason": ["x"]}).to_reader(),
        )
    assert dataset.version() == 0


def test_jobs_that_make_the_table_at_once_all_land(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    jobs = [f"job-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda job: commit(dataset, job, rows_of(job_id=job)), jobs))
    table = dataset.table("index")
    assert table is not None
    assert sorted(table.to_pyarrow_table()["job_id"].to_pylist()) == sorted(jobs * len(PLACES))
    assert sorted(job["job_id"] for job in dataset.jobs()) == jobs


def test_the_same_job_committed_at_once_lands_once(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    commit(dataset, "first", rows_of(job_id="first"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: commit(dataset, "job", rows_of()), range(4)))
    table = dataset.table("index")
    assert table is not None
    assert table.to_pyarrow_table().num_rows == 2 * len(PLACES)
    assert dataset.version() == 1


def test_a_crash_before_the_commit_leaves_orphans_that_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.create(str(tmp_path))
    add_source(dataset, "alpha", "CT", [jpeg(1)])

    def crash(*_: object, **__: object) -> None:
        raise StoreError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr("shards.dataset.append.add_files", crash)
        with pytest.raises(StoreError):
            dataset.reject("job", pa.table({name: ["x"] for name in rejects_schema().names}))
    report = verify(dataset)
    assert report.problems == ()
    (orphan,) = report.orphans
    assert orphan.path.startswith("rejects/part-job-00000-")
    assert dataset.store.local_path(orphan.path) is not None
    removed = remove_orphans(dataset, report.orphans, older_than_seconds=-1)
    assert removed == list(report.orphans)
    assert verify(dataset).orphans == ()


def test_files_of_older_versions_are_no_orphans(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    commit(dataset, "one", rows_of())
    table = dataset.table("index")
    assert table is not None
    table.delete("key = 'k0'")
    assert verify(dataset).orphans == ()
    assert len(list((tmp_path / "index").rglob("part-*.parquet"))) == 4


def test_duckdb_reads_the_files(tmp_path: Path) -> None:
    write(tmp_path, rows_of())
    found = duckdb.sql(
        f"SELECT modality, source, count(*) FROM read_parquet('{tmp_path}/t/**/*.parquet', hive_partitioning=true)"
        " GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert found == [("CT", "a", 2), ("CT", "b", 1), ("US", "a", 2)]


def test_a_put_that_fails_commits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.create(str(tmp_path))

    def fail(*_: object) -> None:
        raise StoreError("disk full")

    monkeypatch.setattr(LocalStore, "put_if_absent", fail)
    with pytest.raises(StoreError, match="disk full"):
        commit(dataset, "job", rows_of())
    assert dataset.table("index") is None


def test_a_column_that_came_later_is_null_in_old_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first commit that has it, and after."""
    dataset = Dataset.create(str(tmp_path / "d"))
    commit(dataset, "old", rows_of(job_id="old"))
    later = index_schema().append(pa.field("burn", pa.string()))
    for module in ("query", "dataset"):
        monkeypatch.setattr(f"shards.dataset.{module}.index_schema", lambda: later)

    def burns() -> list[str | None]:
        table = dataset.table("index")
        assert table is not None
        with duckdb.connect() as database:
            database.register("samples", scan(table))
            return [value for (value,) in database.sql("SELECT burn FROM samples ORDER BY burn NULLS FIRST").fetchall()]

    assert burns() == [None] * 5
    new = rows_of([("CT", "a"), ("CT", "a")], job_id="new").append_column(
        later.field("burn"), pa.array(["yes", None], pa.string())
    )
    commit(dataset, "new", new)
    assert burns() == [None] * 6 + ["yes"]
    table = dataset.table("index")
    assert table is not None
    assert table.to_pyarrow_table(filters=[("burn", "=", "yes")]).num_rows == 1
