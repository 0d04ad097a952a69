"""Tables' files read through the store: the same rows, whatever a network changes, and the store's own error."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from shards.dataset.arrow_files import WHOLE_BYTES, arrow_files
from shards.dataset.query import told_plainly
from shards.dataset.store_errors import Failures
from shards.errors import SampleIndexError, StoreError
from shards.store import MemoryStore
from shards.subset.lock import sorted_digest
from tests.faults import Fault, FaultProxy
from tests.shards.builders import small_dataset

ROWS = pa.table({"a": list(range(1000)), "b": ["x" * (n % 7) for n in range(1000)]})


class Watched(MemoryStore):
    """Counts requests for sizes; can be told to fail."""

    stats = 0
    broken = False
    flips: Sequence[int] = ()

    def stat(self, path: str) -> object:  # type: ignore[override]
        self.stats += 1
        return super().stat(path)

    def read(self, path: str) -> bytes:
        self._fail(path)
        return super().read(path)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        self._fail(path)
        return self._came(start, super().read_range(path, start, length))

    def _fail(self, path: str) -> None:
        if self.broken:
            raise StoreError(f"s3://b/{path}: 503 SlowDown", hint="run the same command again")

    def _came(self, start: int, data: bytes) -> bytes:
        """A reply, in which the network changes the first of `flips` that lies in it."""
        for at in [at for at in self.flips if start <= at < start + len(data)][:1]:
            self.flips = [other for other in self.flips if other != at]
            return data[: at - start] + bytes([data[at - start] ^ 0x55]) + data[at - start + 1 :]
        return data


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
    store.put_if_absent("a=2/f.parquet", store.read("a=1/f.parquet"))
    found = dataset_of(store, {}, ["a=1/f.parquet", "a=2/f.parquet"])
    store.broken = True
    with pytest.raises(StoreError, match=r"a=2/f\.parquet: 503 SlowDown") as caught, told_plainly("s3://b"):
        found.to_table()
    assert caught.value.hint == "run the same command again"
    database = duckdb.connect()
    database.register("rows", found)
    with pytest.raises(StoreError, match=r"^s3://b/a=2/f\.parquet: 503 \w+ — run"), told_plainly("s3://b"):
        database.sql("SELECT sum(a) FROM rows").fetchall()


def test_errors_of_many_reads_at_once_stop_nothing(store: Watched) -> None:
    """Arrow's thread and the one that asks would wait for each other, were an exception to pass through Arrow."""
    paths = [f"a={number}/f.parquet" for number in range(1, 7)]
    for path in paths[1:]:
        store.put_if_absent(path, store.read("a=1/f.parquet"))
    for _ in range(40):
        store.broken = False
        found = dataset_of(store, {}, paths)
        store.broken = True
        with duckdb.connect() as database:
            database.register("rows", found)
            with pytest.raises(StoreError, match="503 SlowDown"), told_plainly("s3://b"):
                database.sql("SELECT sum(a) FROM rows").fetchall()


def test_a_question_gets_the_first_error_since_it_was_asked() -> None:
    noted = Failures()
    noted.note(StoreError("old", hint=""))
    mark = noted.mark()
    assert noted.since(mark) is None
    first = StoreError("first", hint="")
    for error in (first, StoreError("second", hint="")):
        noted.note(error)
    assert noted.since(mark) is first


def named_file(store: Watched, tmp_path: Path, rows: pa.Table) -> tuple[str, int]:
    """Store rows under a name that carries their hash; path and size."""
    pq.write_table(rows, tmp_path / "rows", write_page_checksum=True, compression="none", use_dictionary=False)
    data = (tmp_path / "rows").read_bytes()
    path = f"part-job-00000-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
    store.put_if_absent(path, data)
    return path, len(data)


@pytest.mark.parametrize("place", [0, 50, 500, -100, -6, -1])
def test_a_byte_that_changed_on_the_way_changes_no_row_of_a_small_file(
    store: Watched, tmp_path: Path, place: int
) -> None:
    path, size = named_file(store, tmp_path, ROWS)
    store.flips = [place % size]
    assert dataset_of(store, {path: size}, [path]).to_table().equals(ROWS)
    assert not store.flips


def test_a_small_file_whose_bytes_are_others_is_named(store: Watched) -> None:
    path = f"part-job-00000-{'0' * 16}.parquet"
    store.put_if_absent(path, store.read("a=1/f.parquet"))
    with pytest.raises(SampleIndexError, match=rf"{path}: its content is not what its name"), told_plainly("s3://b"):
        dataset_of(store, {}, [path])


def test_a_byte_that_changed_on_the_way_changes_no_row_of_a_large_file(store: Watched, tmp_path: Path) -> None:
    rows = pa.table({"a": list(range(WHOLE_BYTES // 8 + 1000))})
    path, size = named_file(store, tmp_path, rows)
    assert size > WHOLE_BYTES
    store.flips = [size - 1, size - 200]  # of the footer: it is read again
    found = dataset_of(store, {path: size}, [path])
    assert found.to_table().equals(rows)
    assert not store.flips
    store.flips = [size // 2]  # of a page: it is refused
    checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    with pytest.raises(SampleIndexError, match="CRC checksum"), told_plainly("s3://b"):
        found.scanner(fragment_scan_options=checked).to_table()
    assert found.scanner(fragment_scan_options=checked).to_table().equals(rows)


def test_a_small_file_is_fetched_once_for_many_questions(store: Watched, tmp_path: Path) -> None:
    path, size = named_file(store, tmp_path, ROWS)
    found = dataset_of(store, {path: size}, [path])
    store.broken = True
    for least in (10, 500):
        assert found.to_table(filter=ds.field("a") >= least).num_rows == ROWS.num_rows - least


def test_small_files_kept_at_hand_take_bounded_memory(store: Watched, tmp_path: Path) -> None:
    rows = pa.table({"a": list(range(WHOLE_BYTES // 8 - 1000))})
    path, size = named_file(store, tmp_path, rows)
    assert WHOLE_BYTES * 0.9 < size <= WHOLE_BYTES
    copies = [f"{number}/{path}" for number in range(8)]
    for copy in copies:
        store.put_if_absent(copy, store.read(path))
    before = pa.total_allocated_bytes()
    found = dataset_of(store, dict.fromkeys(copies, size), copies)
    assert found.count_rows() == 8 * rows.num_rows
    assert pa.total_allocated_bytes() - before < 4.5 * WHOLE_BYTES


@pytest.mark.process
@pytest.mark.parametrize("seconds", [0.06, 1.0])
def test_a_process_that_ends_waits_for_reads_that_it_no_longer_wants(store: Watched, seconds: float) -> None:
    code = f"""
        import io, sys, time
        import pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq
        from shards.dataset.arrow_files import arrow_files
        from shards.errors import StoreError
        from shards.store import MemoryStore

        class Slow(MemoryStore):
            def read(self, path):
                if path.startswith("down") and ready:
                    time.sleep(0.05)
                    raise StoreError("503", hint="")
                time.sleep({seconds} if ready else 0)
                return super().read(path)

        ready, store, content = False, Slow(), io.BytesIO()
        pq.write_table(pa.table({{"a": [1]}}), content)
        paths = ["down", *map(str, range(7))]
        for path in paths:
            store.put_if_absent(path, content.getvalue())
        files = arrow_files(store, dict.fromkeys(paths, len(content.getvalue())))
        rows = ds.dataset(paths, filesystem=files, format="parquet", schema=pa.schema([("a", pa.int64())]))
        ready = True
        try:
            rows.to_table()
        except (OSError, pa.ArrowException):
            sys.exit(3)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.s3
def test_rows_are_read_although_answers_break_off(bucket: str, proxy: FaultProxy) -> None:
    dataset = small_dataset(f"{bucket}/data")
    whole = sorted_digest(dataset, dataset.version(), "TRUE")
    proxy.add(Fault.cut(after=5, reset=True), path="/index/.*parquet", times=4)
    proxy.add(Fault.answer(503, "SlowDown"), path="/index/.*parquet", times=2)
    assert sorted_digest(dataset, dataset.version(), "TRUE") == whole
    assert proxy.left() == 0
