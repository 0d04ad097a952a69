"""What reads the log of an open table again: damaged replies are asked for again; what stays damaged is one line."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import deltalake
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from shards.dataset.columns import write_columns
from shards.dataset.compact import compact
from shards.dataset.dataset import Dataset
from shards.dataset.log_questions import ask_log
from shards.dataset.table_log import entry_path
from shards.errors import SampleIndexError, StoreError
from shards.schema import rejects_schema
from shards.store import MemoryStore
from tests.faults import Fault, FaultProxy
from tests.shards.builders import small_dataset

NOT_UTF8 = "Kernel error: Json error: Encountered non-UTF-8 data"
FAULTS = (Fault.flip(0), Fault.flip(40), Fault.truncate(100), Fault.truncate(300))


def whole_log() -> MemoryStore:
    store = MemoryStore("memory://d")
    store.put_if_absent(entry_path("index", 0), b'{"commitInfo":{}}\n')
    return store


def failing(*errors: Exception) -> Callable[[], int]:
    """A question that fails with these errors, one after the other, before it has an answer."""
    left = list(errors)

    def question() -> int:
        if left:
            raise left.pop(0)
        return 7

    return question


def test_a_damaged_reply_is_asked_for_again_and_ends_in_one_line() -> None:
    assert ask_log(whole_log(), "index", failing(*[DeltaError(NOT_UTF8)] * 2)) == 7
    with pytest.raises(StoreError, match=r"memory://d: the log of index/ came damaged \(Kernel error") as caught:
        ask_log(whole_log(), "index", failing(*[DeltaError(f"{NOT_UTF8}\n  0: somewhere")] * 3))
    assert "somewhere" not in str(caught.value)


def test_a_damaged_log_is_named() -> None:
    store = whole_log()
    store.put_if_absent(entry_path("index", 1), b'{"add":\xff')
    with pytest.raises(SampleIndexError, match=r"memory://d/index/_delta_log/0+1\.json is damaged"):
        ask_log(store, "index", failing(*[DeltaError(NOT_UTF8)] * 3))
    with pytest.raises(SampleIndexError, match=r"the log of index/ cannot be read \(Parquet error: no footer\)"):
        ask_log(whole_log(), "index", failing(*[DeltaError("Parquet error: no footer")] * 3))


@pytest.mark.parametrize("error", [CommitFailedError("another was first"), DeltaError("Schema error"), ValueError("n")])
def test_what_says_nothing_of_replies_is_passed_on_at_once(error: Exception) -> None:
    question = failing(error)
    with pytest.raises(type(error), match=str(error)):
        ask_log(whole_log(), "index", question)
    assert question() == 7


def test_a_local_log_is_read_once(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    question = failing(DeltaError(NOT_UTF8))
    with pytest.raises(SampleIndexError, match="the log of index/ cannot be read"):
        dataset.ask_log("index", question)
    assert question() == 7


def indexed(bucket: str) -> tuple[Dataset, DeltaTable, str]:
    """A dataset, its index, and a job that is in it."""
    dataset = small_dataset(f"{bucket}/data")
    table = dataset.table("index")
    assert table is not None
    (job,) = {row["job_id"] for row in dataset.query("SELECT job_id FROM samples WHERE source = 'alpha'").to_pylist()}
    return dataset, table, job


@pytest.mark.s3
@pytest.mark.parametrize("fault", FAULTS)
def test_transactions_and_what_a_vacuum_would_remove(bucket: str, proxy: FaultProxy, fault: Fault) -> None:
    dataset, table, job = indexed(bucket)
    for entry in range(3):
        proxy.add(fault, path=rf"index/_delta_log/0+{entry}\.json", times=1 + entry % 2)
        assert dataset.has_transaction("index", table, job)
        assert proxy.left() == 0
    proxy.add(fault, path=r"index/_delta_log/0+1\.json", times=2)
    assert dataset.ask_log("index", partial(table.vacuum, retention_hours=0, enforce_retention_duration=False)) == []
    assert proxy.left() == 0


@pytest.mark.s3
def test_a_transaction_is_found_where_the_reply_with_it_was_empty(bucket: str, proxy: FaultProxy) -> None:
    dataset, table, job = indexed(bucket)
    for entry in range(3):
        proxy.add(Fault.truncate(0), path=rf"index/_delta_log/0+{entry}\.json")
        assert dataset.has_transaction("index", table, job)
        assert proxy.left() == 0


@pytest.mark.s3
def test_replies_that_stay_damaged_are_one_line(bucket: str, proxy: FaultProxy) -> None:
    dataset, table, _ = indexed(bucket)
    proxy.add(Fault.truncate(100), path=r"index/_delta_log/0+1\.json", times=3)
    with pytest.raises(StoreError, match="the log of index/ came damaged"):
        dataset.has_transaction("index", table, "job")


@pytest.mark.s3
@pytest.mark.parametrize("fault", FAULTS)
def test_commits_are_made_once(bucket: str, proxy: FaultProxy, fault: Fault) -> None:
    dataset = small_dataset(f"{bucket}/data")
    row = dict.fromkeys(rejects_schema().names, "") | {"source": "alpha", "reason": "blank", "job_id": "j"}
    rejects = pa.Table.from_pylist([row], schema=rejects_schema())
    for number in range(4):
        proxy.add(fault, path=r"rejects/_delta_log/0+\d\.json", times=2)
        dataset.reject(f"j{number}", rejects)
        proxy.clear()
    assert dataset.query("SELECT count(*) AS n FROM rejects WHERE job_id = 'j'")["n"].to_pylist() == [4]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("method", "ask"),
    [
        ("history", lambda dataset: dataset.jobs()),
        ("create_checkpoint", lambda dataset: dataset.ask_log("index", dataset.table("index").create_checkpoint)),
        ("transaction_version", compact),
        ("delete", lambda dataset: dataset.delete_rows("index", "source = 'beta'")),
    ],
)
def test_whatever_reads_the_log_is_asked_again(
    bucket: str, monkeypatch: pytest.MonkeyPatch, method: str, ask: Callable[[Dataset], Any]
) -> None:
    """deltalake keeps the interpreter to itself during some of these calls, so that no proxy of ours can answer."""
    dataset = small_dataset(f"{bucket}/data")
    asked, errors = getattr(DeltaTable, method), [DeltaError(NOT_UTF8)] * 2

    def damaged(*arguments: Any, **named: Any) -> Any:
        if errors:
            raise errors.pop()
        return asked(*arguments, **named)

    monkeypatch.setattr(DeltaTable, method, damaged)
    ask(dataset)
    assert not errors


@pytest.mark.s3
def test_columns_are_written_again(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_dataset(f"{bucket}/data")
    keys = dataset.query("SELECT key FROM samples")["key"]
    write, errors = deltalake.write_deltalake, [DeltaError(NOT_UTF8)] * 2

    def damaged(*arguments: Any, **named: Any) -> None:
        if errors:
            raise errors.pop()
        write(*arguments, **named)

    monkeypatch.setattr(deltalake, "write_deltalake", damaged)
    given = pa.table({"key": keys, "age": pa.array(range(len(keys)), pa.int64())})
    assert write_columns(dataset, given, note={}) == 0
    assert not errors
