"""Columns of the user's own: versions, locks that hold on theirs, and two writers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from shards.dataset.columns import (
    check_name,
    column_kinds,
    column_table,
    columns_version,
    describe_columns,
    named_in,
    remove_columns,
    write_columns,
)
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SampleIndexError
from shards.subset import Lock, Selection, create, materialize
from shards.subset.data_list import export_list
from shards.subset.difference import diff
from shards.subset.finding import find
from shards.subset.keys import write_keys
from tests.shards.builders import small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data")


def keys_of(dataset: Dataset) -> list[str]:
    keys: list[str] = dataset.query("SELECT key FROM samples ORDER BY key")["key"].to_pylist()
    return keys


def ages(keys: list[str], start: int = 0) -> pa.Table:
    return pa.table({"key": keys, "age": pa.array(range(start, start + len(keys)), pa.int64())})


@pytest.mark.slow
def test_a_lock_holds_on_the_version_of_the_columns_that_it_pins(dataset: Dataset, tmp_path: Path) -> None:
    keys = keys_of(dataset)
    write_columns(dataset, ages(keys), note={})
    lock = create(dataset, Selection(where="age >= 100"))
    path = tmp_path / "old.lock.yaml"
    lock.write(path)
    assert Lock.read(path).columns_version == 0
    write_columns(dataset, ages(keys, start=1000), replace=True, note={})
    assert create(dataset, Selection(where="age >= 100")).num_samples == 120
    assert find(Lock.read(path)).chosen.num_samples == 20
    remove_columns(dataset, ["age"])
    assert find(Lock.read(path), full=True).same_order is True
    assert diff(path, dataset.url).num_same == 20
    write_keys(lock, dataset, tmp_path / "keys.parquet")
    copy = materialize(lock, str(tmp_path / "copy"))
    assert find(lock, copy).chosen.num_samples == 20
    with pytest.raises(ConfigError, match='"age" not found'):
        create(dataset, Selection(where="age >= 100"))


def test_a_lock_without_columns_is_written_as_before(dataset: Dataset, tmp_path: Path) -> None:
    create(dataset, Selection()).write(tmp_path / "a.lock.yaml")
    assert "columns_version" not in (tmp_path / "a.lock.yaml").read_text()


def test_a_data_list_of_all_columns_has_them_too(dataset: Dataset) -> None:
    keys = keys_of(dataset)
    seen = pa.array([datetime(2021, 3, 4, tzinfo=UTC)] * 3, pa.timestamp("us", "UTC"))
    write_columns(dataset, ages(keys[:3]).append_column("seen", seen), note={})
    lines = list(export_list(dataset.url, format_="jsonl"))
    assert '"age": 2' in lines[2]
    assert '"age": null' in lines[3]
    assert create(dataset, Selection(where="seen < '2021-03-05' AND age > 0")).num_samples == 2


@pytest.mark.slow
def test_types_come_back_as_they_went_in(dataset: Dataset) -> None:
    keys = keys_of(dataset)
    given = pa.table(
        {
            "key": keys,
            "a": pa.array([True] * 120),
            "b": pa.array([0.5] * 120),
            "c": pa.array(["x"] * 60 + ["y"] * 60),
            "d": pa.array([18_000] * 120, pa.date32()),
        }
    )
    write_columns(dataset, given, note={})
    assert column_kinds(column_table(dataset)) == {"a": "bool", "b": "float", "c": "category", "d": "date"}
    assert [facts.examples for facts in describe_columns(dataset)][2] == "x, y"
    assert create(dataset, Selection(where="a AND b < 1 AND c = 'y' AND d > DATE '2000-01-01'")).num_samples == 60


@pytest.mark.slow
def test_writers_at_the_same_time_lose_nothing(dataset: Dataset) -> None:
    keys = keys_of(dataset)

    def write(number: int) -> None:
        write_columns(dataset, ages(keys).rename_columns(["key", f"age_{number}"]), note={})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert sorted(column_kinds(column_table(dataset))) == ["age_0", "age_1", "age_2"]
    assert columns_version(dataset) == 2


def test_what_is_not_there_is_said_in_one_line(dataset: Dataset) -> None:
    assert describe_columns(dataset) == []
    with pytest.raises(ConfigError, match="no own column age"):
        remove_columns(dataset, ["age"])
    write_columns(dataset, ages(keys_of(dataset)), note={})
    with pytest.raises(SampleIndexError):
        column_table(dataset, 7)
    for name in ("width", "order", "Age", "a b", ""):
        with pytest.raises(ConfigError):
            check_name(name)
    check_name("age_60")


def test_names_are_words_of_a_predicate() -> None:
    assert named_in("Age > 60 AND stage = 'age_2'", ["age", "stag", "stage", "ge"]) == ["age", "stage"]
