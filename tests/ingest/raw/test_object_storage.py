"""Raw files on S3: small ones are checked, large ones read in ranges; a fault of the storage is no fault of a file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.s3_server import Server
from ingest.raw.faults import fault_of
from ingest.raw.object_storage import _Blocks
from ingest.raw.root import RawRoot
from shards.errors import NotFoundError, SourceError, StoreError, UnavailableError
from shards.store import MemoryStore, open_store
from tests.faults import Fault, FaultProxy

DATA = os.urandom(100_000)


@pytest.fixture
def proxy(s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.mark.s3
@pytest.mark.parametrize("fault", [Fault.flip(77), Fault.cut(after=500, reset=True), Fault.answer(503, "SlowDown")])
def test_what_arrives_changed_or_not_at_all_is_asked_for_again(bucket: str, proxy: FaultProxy, fault: Fault) -> None:
    open_store(f"{bucket}/raw").put_if_absent("d/a b#1%20.png", DATA)
    root = RawRoot(f"{bucket}/raw")
    assert [(found.path, found.size) for found in root.walk()] == [("d/a b#1%20.png", len(DATA))]
    proxy.add(fault, path="/raw/d/")
    with root.open("d/a b#1%20.png") as stream:
        assert stream.read() == DATA
    assert proxy.left() == 0


@pytest.mark.s3
def test_a_storage_that_fails_is_no_fault_of_the_file(
    bucket: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIOVFM_STORE_BUDGET_SECONDS", "1")
    open_store(f"{bucket}/raw").put_if_absent("a.png", DATA)
    root = RawRoot(f"{bucket}/raw", block_bytes=1000)
    with root.open("a.png") as stream:
        assert stream.read(10) == DATA[:10]
        stream.seek(90_000)
        proxy.add(Fault.answer(503, "SlowDown"), times=1000)
        with pytest.raises(StoreError) as caught:
            stream.read(10)
    assert isinstance(fault_of(caught.value), UnavailableError)
    proxy.clear()
    with pytest.raises(FileNotFoundError):
        root.open("gone.png")
    assert fault_of(NotFoundError("gone")) is None


@given(st.lists(st.tuples(st.sampled_from(["seek", "end", "read"]), st.integers(0, 1200)), max_size=12))
@settings(max_examples=60)
def test_a_large_object_reads_as_a_file_does(steps: list[tuple[str, int]]) -> None:
    store = MemoryStore()
    store.put_if_absent("x", DATA[:1000])
    ours = io.BufferedReader(_Blocks(store, "x", 1000), 64)  # type: ignore[arg-type]
    real = io.BytesIO(DATA[:1000])
    for kind, number in steps:
        if kind == "read":
            assert ours.read(number) == real.read(number)
        else:
            offset, whence = (number, io.SEEK_SET) if kind == "seek" else (-min(number, 1000), io.SEEK_END)
            assert ours.seek(offset, whence) == real.seek(offset, whence)


@pytest.mark.slow
def test_a_dead_endpoint_is_told_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("shards.store.notice.QUIET_SECONDS", 0.1)
    with pytest.raises(SourceError, match=r"^cannot read s3://b/raw: EndpointConnectionError — check URL"):
        RawRoot("s3://b/raw")
    assert "waiting for s3://b/raw" in capsys.readouterr().err
