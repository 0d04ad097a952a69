"""Rows taken out of tables: only the files that hold them are written again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from shards.dataset.dataset import Dataset
from shards.dataset.rewrite import drop_rows, may_hold, read_rows, schema_of
from shards.dataset.table_files import add_actions
from shards.dataset.verify import verify
from shards.schema import INDEX_COLUMNS
from tests.shards.builders import small_dataset

if TYPE_CHECKING:
    from shards.dataset.rewrite import Gone


def files_of(dataset: Dataset, name: str = "index") -> set[str]:
    table = dataset.table(name)
    assert table is not None
    return {action["path"] for action in add_actions(table)}


def of_keys(*keys: str) -> Gone:
    wanted = pa.array(keys, pa.string())
    return lambda batch: pc.is_in(batch["key"], value_set=wanted)


def keys_of(dataset: Dataset, source: str) -> list[str]:
    return sorted(dataset.query("SELECT key FROM samples WHERE source = ?", params=[source])["key"].to_pylist())


@pytest.mark.slow
def test_one_row_goes_and_other_files_stay(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    before, (first, *others) = files_of(dataset), keys_of(dataset, "alpha")
    assert drop_rows(dataset, "index", of_keys(first), columns=["key"], transaction="t") == 1
    assert keys_of(dataset, "alpha") == others
    after = files_of(dataset)
    assert len(before - after) == len(after - before) == 1
    assert dataset.query("SELECT count(*) FROM samples WHERE key = ?", params=[first], version=2)[0][0].as_py() == 1
    assert not [problem for problem in verify(dataset).problems if problem.kind == "table"]


def test_a_repeated_call_does_nothing(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    first, second = keys_of(dataset, "alpha")[:2]
    assert drop_rows(dataset, "index", of_keys(first), columns=["key"], transaction="t") == 1
    assert drop_rows(dataset, "index", of_keys(second), columns=["key"], transaction="t") == 0
    assert dataset.version() == 3


def test_a_file_of_nothing_else_leaves(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    gone = of_keys(*keys_of(dataset, "beta"))
    assert drop_rows(dataset, "index", gone, columns=["key"], transaction="t") == 40
    assert len(files_of(dataset)) == 2


def test_files_outside_the_bounds_are_not_opened(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    first = keys_of(dataset, "alpha")[0]
    for file in (tmp_path / "d/index").rglob("part-*beta*"):
        file.unlink()
    bounds = {"key": (first, first)}
    assert drop_rows(dataset, "index", of_keys(first), columns=["key"], transaction="t", bounds=bounds) == 1


def test_files_of_a_job_may_be_spared(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    first = keys_of(dataset, "alpha")[0]
    assert drop_rows(dataset, "index", of_keys(first), columns=["key"], transaction="t", spared="alpha-CT") == 0


def test_bounds_that_the_log_does_not_tell_exclude_nothing() -> None:
    assert may_hold({}, {"key": ("a", "b")})
    assert may_hold({"min.key": "a", "max.key": "c"}, {"key": ("b", "b")})
    assert not may_hold({"min.key": "c", "max.key": "d"}, {"key": ("a", "b")})


def test_rows_have_the_columns_of_the_table_in_its_order(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    table = dataset.samples_table()
    (batch,) = read_rows(dataset, table, "index", add_actions(table)[0])
    assert batch.schema == schema_of(table)
    assert batch.schema.names == list(INDEX_COLUMNS)
    assert set(batch["modality"].to_pylist()) == {add_actions(table)[0]["partition.modality"]}
    assert batch["burned_in"].null_count == len(batch)


def test_files_keep_the_types_that_our_own_have(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    drop_rows(dataset, "index", of_keys(keys_of(dataset, "alpha")[0]), columns=["key"], transaction="t")
    (path,) = [path for path in files_of(dataset) if "part-t-" in path]
    assert pq.read_schema(tmp_path / "d/index" / path).field("key").type == pa.string()


def test_rows_that_stay_may_get_other_values(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    first, second, *others = keys_of(dataset, "alpha")

    def relicensed(batch: pa.RecordBatch) -> pa.RecordBatch:
        at = batch.schema.get_field_index("licence")
        wanted = pc.equal(batch["key"], second)
        return batch.set_column(at, batch.schema.field(at), pc.if_else(wanted, "other", batch["licence"]))

    before = files_of(dataset)
    call = {"columns": ["key", "licence"], "changed": relicensed}
    assert drop_rows(dataset, "index", of_keys(first), transaction="t", **call) == 1
    assert len(files_of(dataset) - before) == 1
    found = dataset.query("SELECT key FROM samples WHERE licence = 'other'")["key"].to_pylist()
    assert found == [second]
    assert keys_of(dataset, "alpha") == [second, *others]
    assert drop_rows(dataset, "index", of_keys(), transaction="u", **call) == 0
    assert drop_rows(dataset, "index", of_keys(), transaction="v", **call) == 0
    assert dataset.version() == 3, "a change that changes nothing is no commit"
