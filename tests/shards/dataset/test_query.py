"""Tables on object storage: answers that break off are asked for again, and what stays broken is one line."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError

from shards.dataset.dataset import Dataset
from shards.dataset.query import ask_tables, told_plainly
from shards.errors import SampleIndexError, StoreError
from shards.schema import rejects_schema
from shards.stream.plan import plan_dataset
from tests.faults import Fault, FaultProxy
from tests.shards.builders import small_dataset

_S3_BROKE_OFF = "Generic S3 error: HTTP error: request or response body error"


@pytest.mark.s3
@pytest.mark.parametrize("fault", [Fault.cut(after=5), Fault.cut(after=5, reset=True), Fault.cut()])
def test_answers_of_the_log_and_the_index_that_break_off_are_asked_for_again(
    bucket: str, proxy: FaultProxy, fault: Fault
) -> None:
    dataset = small_dataset(f"{bucket}/data")
    proxy.add(fault, path="_delta_log/_last_checkpoint", times=3)
    proxy.add(fault, path="/index/.*parquet", times=3)
    opened = Dataset.open(dataset.url)
    assert len(opened.query("SELECT key FROM samples")) == 120
    proxy.add(fault, path="/index/", times=4)
    plan = plan_dataset(opened)
    proxy.add(fault, path="/index/.*parquet", times=2)
    assert sum(len(rows.keys) for rows in plan.source.rows(range(len(plan.shards)))) == 120


@pytest.mark.s3
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_commit_whose_answers_break_off_is_made_once(bucket: str, proxy: FaultProxy, method: str) -> None:
    dataset = small_dataset(f"{bucket}/data")
    row = dict.fromkeys(rejects_schema().names, "") | {"source": "alpha", "reason": "blank", "job_id": "j"}
    rejects = pa.Table.from_pylist([row], schema=rejects_schema())
    proxy.add(Fault.cut(after=5, reset=True), method=method, path="/rejects/_delta_log", times=3)
    dataset.reject("j", rejects)
    dataset.reject("j", rejects)
    assert dataset.query("SELECT count(*) AS n FROM rejects WHERE job_id = 'j'")["n"].to_pylist() == [1]


@pytest.mark.s3
def test_what_is_refused_is_not_asked_for_again(bucket: str, proxy: FaultProxy) -> None:
    dataset = small_dataset(f"{bucket}/data")
    proxy.add(Fault.answer(403, "AccessDenied"), times=1000)
    started = time.monotonic()
    with pytest.raises(StoreError, match="403") as caught:
        dataset.version()
    assert "credentials" in caught.value.hint
    assert time.monotonic() - started < 10


@pytest.mark.slow
def test_an_end_comes_with_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOVFM_STORE_BUDGET_SECONDS", "1")
    calls = []

    def broken() -> None:
        calls.append(time.monotonic())
        raise OSError(_S3_BROKE_OFF)

    with pytest.raises(StoreError, match="s3://b/d: Generic S3 error") as caught:
        ask_tables("s3://b/d", broken)
    assert len(calls) > 1
    assert calls[-1] - calls[0] < 1.5
    assert "run the same command again" in caught.value.hint


def test_damage_is_told_at_once_and_named() -> None:
    calls = []

    def damaged() -> None:
        calls.append(1)
        raise pa.ArrowInvalid("Parquet magic bytes not found in footer")

    for url in ("s3://b/d", "/data/d"):
        with pytest.raises(SampleIndexError, match=f"{url}: Parquet magic bytes"):
            ask_tables(url, damaged)
    assert len(calls) == 2
    with pytest.raises(OSError, match="No space left"), told_plainly("/data/d"):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "text",
    ["Disk quota exceeded (os error 122)", "\x1b[31m↳\x1b[0m Unable to copy data to file: No space left (os error 28)"],
)
def test_what_the_system_says_is_not_laid_to_the_table(text: str) -> None:
    for kind in (OSError, DeltaError):
        with (
            pytest.raises(StoreError, match=r"^/data: .*\(os error \d+\) — check the free space") as caught,
            told_plainly("/data"),
        ):
            raise kind(f"Generic LocalFileSystem error {text}")
        assert "\x1b" not in str(caught.value)
    with pytest.raises(OSError, match="os error 2"), told_plainly("/data"):
        raise OSError("Object not found (os error 2)")
