"""Files whose columns are null in every row, or hold NaN, answer as a plain table of the same rows does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from shards.dataset.bounds import without_null_bounds
from shards.dataset.columns import write_columns
from shards.dataset.dataset import Dataset
from shards.dataset.query import scan
from shards.subset.chosen import choose
from tests.shards.builders import commit_rows, small_dataset

ROW: dict[str, Any] = {"source": "alpha", "modality": "CT"}
NAN = float("nan")
PREDICATES = (
    "burned_in IS NULL",
    "burned_in IS NOT NULL",
    "burned_in = 'yes'",
    "burned_in IS NULL OR width > 4",
    "NOT (burned_in IS NULL)",
    "coalesce(burned_in, 'no') = 'no'",
    "burned_in IS DISTINCT FROM 'yes'",
    "isnan(window_center)",
    "NOT isnan(window_center)",
    "window_center > 0",
    "window_center <= 0",
)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four files: all null, some null, none null, and another partition."""
    made = Dataset.create(str(tmp_path_factory.mktemp("bounds") / "data"))
    commit_rows(made, "a", [ROW, {**ROW, "width": 7}])
    commit_rows(made, "b", [{**ROW, "burned_in": "yes", "window_center": NAN}, ROW])
    commit_rows(made, "c", [{**ROW, "burned_in": "no", "window_center": 40.0}])
    commit_rows(made, "d", [{**ROW, "source": "beta", "window_center": NAN}])
    return made


@pytest.mark.parametrize("where", PREDICATES)
def test_a_predicate_finds_the_rows_of_a_plain_table(dataset: Dataset, where: str) -> None:
    rows = scan(dataset.samples_table()).to_table()
    with duckdb.connect() as database:
        database.register("given", rows)
        database.execute("CREATE TABLE samples AS FROM given")
        ((wanted,),) = database.sql(f"SELECT count(*) FROM samples WHERE {where}").fetchall()
    assert choose(dataset, dataset.version(), where).num_samples == wanted
    assert len(dataset.query(f"SELECT key FROM samples WHERE {where}")) == wanted


def test_bounds_that_are_known_still_leave_files_out(dataset: Dataset) -> None:
    import pyarrow.dataset as ds

    rows = scan(dataset.samples_table())
    assert len(list(rows.get_fragments(ds.field("width") == 7))) == 1
    assert len(list(rows.get_fragments(ds.field("source") == "beta"))) == 1


def test_a_table_without_such_columns_stays_as_it_is(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    import pyarrow as pa

    keys = dataset.query("SELECT key FROM samples LIMIT 3")["key"]
    write_columns(dataset, pa.table({"key": keys, "age": pa.array([1, 2, 3])}), note={})
    table = dataset.table("columns")
    assert table is not None
    made = table.to_pyarrow_dataset()
    assert without_null_bounds(table, made) is made
