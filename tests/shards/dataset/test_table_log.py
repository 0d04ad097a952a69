"""The log on object storage: no page of a network is taken for it, and a commit is what was sent or is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import CommitProperties, Transaction
from deltalake.transaction import AddAction
from hypothesis import example, given
from hypothesis import strategies as st

from infra.s3_server import Server
from shards.dataset.dataset import Dataset
from shards.dataset.table_log import entry_of, entry_path, is_committed, require_newest
from shards.dataset.verify import verify
from shards.errors import SampleIndexError, StoreError
from shards.schema import rejects_schema
from shards.store import MemoryStore
from shards.store.driver import DriverError
from tests.faults import Fault, FaultProxy
from tests.shards.builders import add_source, jpeg, small_dataset


def entry(*, path: str = "part.parquet", job: str = "j", is_new: bool = False) -> bytes:
    add = AddAction(
        path=path, size=10, partition_values={"a": "b"}, modification_time=1, data_change=True, stats='{"numRecords":1}'
    )
    return entry_of(
        pa.schema([("a", pa.string()), ("n", pa.int64())]),
        [add],
        partition_by=("a",),
        properties=CommitProperties(custom_metadata={"job": job}, app_transactions=[Transaction(job, 1)]),
        is_new=is_new,
    )


FIRST, OTHER, SENT = entry(is_new=True), entry(path="other.parquet", job="other"), entry()
MARKS = ['"appId":"j"', "part.parquet"]


def log_of(*entries: bytes) -> MemoryStore:
    store = MemoryStore()
    for version, text in enumerate(entries):
        store.put_if_absent(entry_path("index", version), text)
    return store


def test_a_log_that_goes_on_is_told_from_one_that_ends() -> None:
    store = log_of(FIRST, SENT)
    require_newest(store, "index", 1)
    with pytest.raises(DriverError, match=r"left out index/_delta_log/0{19}1\.json"):
        require_newest(store, "index", 0)
    require_newest(store, "rejects", -1)
    store.put_if_absent("rejects/_delta_log/_last_checkpoint", b"{}")
    with pytest.raises(DriverError, match="left out"):
        require_newest(store, "rejects", -1)


def test_a_commit_is_found_wherever_it_landed() -> None:
    for store in (log_of(OTHER, entry()), log_of(OTHER, entry(), OTHER)):
        assert is_committed(store, "index", after=0, sent=SENT, marks=MARKS)
    assert is_committed(log_of(FIRST), "index", after=-1, sent=entry(is_new=True), marks=MARKS)
    assert not is_committed(log_of(SENT, OTHER), "index", after=0, sent=SENT, marks=MARKS)


@given(text=st.sampled_from([SENT, FIRST]), at=st.integers(0, 10_000), bit=st.integers(0, 7))
@example(text=SENT, at=0, bit=7)
def test_every_flipped_bit_is_seen_or_does_not_matter(text: bytes, at: int, bit: int) -> None:
    changed = bytearray(text)
    changed[at % len(text)] ^= 1 << bit
    store = log_of(OTHER, bytes(changed))
    try:
        assert is_committed(store, "index", after=0, sent=text, marks=MARKS)
    except DriverError:
        assert [info.path for info in store.list()] == [entry_path("index", 0)]
    else:  # a digit of a time or of the table's random id, or its twin in the commit's words
        lines = [json.loads(line) for line in (text.decode(), changed.decode()) for line in line.splitlines()]
        half = len(lines) // 2
        for before, after in zip(lines[:half], lines[half:], strict=True):
            (kind,) = before
            assert before == after or kind in {"commitInfo", "metaData"}
            assert before[kind].keys() == after[kind].keys()


def test_a_damaged_entry_that_others_follow_is_named() -> None:
    with pytest.raises(SampleIndexError, match=r"0{20}\.json is not what was written"):
        is_committed(log_of(SENT[:-1] + b"\xff", OTHER), "index", after=-1, sent=SENT, marks=MARKS)


def num_samples(url: str) -> int:
    return int(Dataset.open(url).query("SELECT count(*) AS n FROM samples")["n"][0].as_py())


@pytest.mark.parametrize("lines", [1, 2])
def test_an_entry_that_was_cut_at_the_end_of_a_line_is_found(tmp_path: Path, lines: int) -> None:
    small_dataset(tmp_path / "d")
    path = tmp_path / "d" / entry_path("index", 1)
    whole = path.read_bytes()
    assert not verify(Dataset.open(str(tmp_path / "d"))).problems
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:lines]))
    found = {problem.path: problem.detail for problem in verify(Dataset.open(str(tmp_path / "d"))).problems}
    assert "ends before its transaction" in found[entry_path("index", 1)]


@pytest.mark.s3
@pytest.mark.parametrize("path", [r"list-type.*index", r"index/_delta_log/0+\.json", "dataset.json"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_web_page_is_no_answer(
    bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, path: str, method: str
) -> None:
    url = small_dataset(f"{bucket}/data").url
    proxy.add(Fault.page(), method=method, path=path)
    assert num_samples(url) == 120
    proxy.clear()
    proxy.add(Fault.page(), method=method, path=path, times=1000)
    if method == "HEAD" and path != "dataset.json":
        return  # nobody asks
    monkeypatch.setenv("BIOVFM_STORE_BUDGET_SECONDS", "3")
    with pytest.raises(StoreError):
        num_samples(url)


@pytest.mark.s3
@pytest.mark.parametrize("at", [3, 200, 500, -3, -20, -60, -120])
def test_a_commit_that_arrives_damaged_is_made_again(
    bucket: str, proxy: FaultProxy, s3_server: Server, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    dataset = Dataset.create(f"{bucket}/data")
    proxy.add(Fault.flip_sent(at), method="PUT", path="index/_delta_log")
    proxy.add(Fault.flip_sent(at), method="PUT", path="rejects/_delta_log")
    add_source(dataset, "alpha", "CT", [jpeg(n) for n in range(9)])
    proxy.add(Fault.flip_sent(at), method="PUT", path="index/_delta_log")
    add_source(dataset, "beta", "US", [jpeg(n) for n in range(20, 25)])
    assert proxy.left() == 0
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    opened = Dataset.open(dataset.url)
    assert len(opened.query("SELECT key FROM samples")) == 14
    assert [job["version"] for job in opened.jobs()] == [0, 1]
    assert not verify(opened, deep=True).problems


@pytest.mark.s3
@pytest.mark.parametrize("version", [None, 1])
def test_an_entry_that_comes_in_part_is_no_damage(bucket: str, proxy: FaultProxy, version: int | None) -> None:
    dataset = small_dataset(f"{bucket}/data")
    entry = r"index/_delta_log/0{19}1\.json"
    proxy.add(Fault.truncate(300), path=entry, times=2)
    table = dataset.table("index", version=version)
    assert table is not None
    assert table.version() == (2 if version is None else version)
    assert proxy.left() == 0
    proxy.add(Fault.truncate(300), path=entry, times=3)
    with pytest.raises(StoreError, match="came damaged"):
        dataset.table("index", version=version)


@pytest.mark.s3
def test_a_commit_that_a_web_page_took_is_made_again(bucket: str, proxy: FaultProxy) -> None:
    dataset = small_dataset(f"{bucket}/data")
    proxy.add(Fault.page(), method="PUT", path="rejects/_delta_log", times=2)
    row = dict.fromkeys(rejects_schema().names, "") | {"source": "alpha", "reason": "blank", "job_id": "j"}
    dataset.reject("j", pa.Table.from_pylist([row], schema=rejects_schema()))
    assert dataset.query("SELECT count(*) AS n FROM rejects WHERE job_id = 'j'")["n"].to_pylist() == [1]
    assert proxy.left() == 0
