"""Tables' files read through the store: the same rows, exact ranges, and the store's own error in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from shards.dataset.arrow_files import arrow_files, store_error
from shards.dataset.query import told_plainly
from shards.errors import StoreError
from shards.store import MemoryStore
from shards.subset.lock import sorted_digest
from tests.faults import Fault, FaultProxy
from tests.shards.builders import small_dataset

ROWS = pa.table({"a": list(range(1000)), "b": ["x" * (n % 7) for n in range(1000)]})


class Watched(MemoryStore):
    """Counts requests for sizes; can be told to fail."""

    stats = 0
    broken = False

    def stat(self, path: str) -> object:  # type: ignore[override]
        self.stats += 1
        return super().stat(path)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        if self.broken:
            raise StoreError(f"s3://b/{path}: 503 SlowDown", hint="run the same command again")
        return super().read_range(path, start, length)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    pq.write_table(ROWS, tmp_path / "f", row_group_size=100)
    store = Watched()
    store.put_if_absent("a=1/f.parquet", (tmp_path / "f").read_bytes())
    return store


def dataset_of(store: Watched, sizes: dict[str, int], paths: Sequence[str] = ("a=1/f.parquet",)) -> ds.Dataset:
    return ds.dataset(list(paths), filesystem=arrow_files(store, sizes), format="parquet")


@pytest.mark.parametrize("known", [True, False])
def test_rows_come_through_the_store(store: Watched, known: bool) -> None:
    size = store.stat("a=1/f.parquet").size  # type: ignore[attr-defined]
    store.stats = 0
    found = dataset_of(store, {"a=1/f.parquet": size} if known else {})
    assert found.to_table().equals(ROWS)
    assert found.to_table(filter=ds.field("a") > 990, columns=["b"]).num_rows == 9
    assert (store.stats == 0) is known


def test_an_error_of_the_store_arrives_whole_through_arrow_and_duckdb(store: Watched) -> None:
    found = dataset_of(store, {})
    store.broken = True
    with pytest.raises(StoreError, match=r"a=1/f\.parquet: 503 SlowDown") as caught, told_plainly("s3://b"):
        found.to_table()
    assert caught.value.hint == "run the same command again"
    database = duckdb.connect()
    database.register("rows", found)
    with pytest.raises(StoreError, match=r"^s3://b/a=1/f\.parquet: 503 \w+ — run"), told_plainly("s3://b"):
        database.sql("SELECT sum(a) FROM rows").fetchall()
    assert store_error("No space left on device") is None


@pytest.mark.s3
def test_rows_are_read_although_answers_break_off(bucket: str, proxy: FaultProxy) -> None:
    dataset = small_dataset(f"{bucket}/data")
    whole = sorted_digest(dataset, dataset.version(), "TRUE")
    proxy.add(Fault.cut(after=5, reset=True), path="/index/.*parquet", times=4)
    proxy.add(Fault.answer(503, "SlowDown"), path="/index/.*parquet", times=2)
    assert sorted_digest(dataset, dataset.version(), "TRUE") == whole
    assert proxy.left() == 0
