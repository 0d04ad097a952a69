"""Training streams from object storage: the same samples as from disk, whatever the server and time do."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from infra import s3_server
from shards.dataset.dataset import Dataset
from shards.store import open_store
from shards.stream.stream import Stream
from shards.subset.lock import Selection, create
from tests.faults import Fault, FaultProxy
from tests.shards.builders import add_source, jpeg, small_dataset

BATCH = 8


def batches(url: str, *, num_epochs: int = 1) -> list[tuple[tuple[str, ...], tuple[bytes, ...]]]:
    """Keys and compressed images of every batch."""
    with Stream(url, global_batch=BATCH, num_threads=2, num_epochs=num_epochs) as stream:
        return [(batch.keys, batch.blobs) for batch in stream]


def copy_to(url: str, dataset: Dataset) -> None:
    """The same objects, tables included, somewhere else."""
    target = open_store(url)
    for info in dataset.store.list():
        target.put_if_absent(info.path, dataset.store.read(info.path))


@pytest.mark.s3
def test_a_stream_from_s3_is_the_stream_from_disk(bucket: str, tmp_path: Path) -> None:
    local = small_dataset(tmp_path / "data")
    copy_to(f"{bucket}/data", local)
    assert batches(f"{bucket}/data", num_epochs=2) == batches(local.url, num_epochs=2)


@pytest.mark.s3
def test_a_stream_through_faults_is_the_same_stream(
    bucket: str, s3_env: s3_server.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = small_dataset(tmp_path / "data")
    copy_to(f"{bucket}/data", local)
    monkeypatch.setenv("BIOVFM_STORE_READ_SECONDS", "1.0")
    monkeypatch.setenv("BIOVFM_STORE_BACKOFF_SECONDS", "0.05")
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        faults = (Fault.cut(after=2000), Fault.flip(3000), Fault.stall(after=1000), Fault.truncate(700))
        for fault in (*faults, Fault.answer(503, "SlowDown"), Fault.drop_reply()):
            proxy.add(fault, path=r"\.tar", times=2)
        assert batches(f"{bucket}/data") == batches(local.url)


@pytest.mark.s3
@pytest.mark.slow
def test_a_stream_goes_on_when_its_server_dies_and_comes_back(
    tmp_path: Path, s3_env: s3_server.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own server, since the shared one must not be killed under other tests."""
    local = small_dataset(tmp_path / "data")
    expected = batches(local.url, num_epochs=6)
    with s3_server.start(tmp_path / "s3") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        url = server.make_bucket("killed") + "/data"
        copy_to(url, local)
        seen = []
        with Stream(url, global_batch=BATCH, num_threads=2, num_epochs=6, cache_bytes=1) as stream:
            for batch in stream:
                seen.append((batch.keys, batch.blobs))
                if len(seen) == 5:
                    server.kill()
                    back = threading.Timer(3.0, server.launch)
                    back.start()
                    time.sleep(0.5)
        back.join()
    assert seen == expected


@pytest.mark.s3
def test_an_old_lock_streams_the_same_bytes_after_more_ingests_and_a_vacuum(bucket: str, tmp_path: Path) -> None:
    dataset = Dataset.create(f"{bucket}/data")
    add_source(dataset, "alpha", "CT", [jpeg(number) for number in range(24)], per_shard=8)
    lock = create(dataset, Selection())
    lock.write(tmp_path / "old.lock.yaml")
    before = batches(str(tmp_path / "old.lock.yaml"))
    for number in range(1, 4):
        images = [jpeg(100 * number + item) for item in range(16)]
        add_source(dataset, "alpha", "CT", images, per_shard=8, job_id=f"later-{number}")
    assert batches(str(tmp_path / "old.lock.yaml")) == before
    table = dataset.table("index")
    assert table is not None
    table.optimize.compact()
    removed = table.vacuum(
        retention_hours=0, enforce_retention_duration=False, dry_run=False, keep_versions=[lock.index_version]
    )
    assert removed
    assert batches(str(tmp_path / "old.lock.yaml")) == before
    assert len(batches(dataset.url)) == (24 + 3 * 16) // BATCH
