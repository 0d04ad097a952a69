"""Reading from object storage: blocks and ranges, caches under a budget, bad bytes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from shards.blocks import DiskBlocks, MemoryBlocks
from shards.decode import Crops
from shards.errors import ShardError
from shards.reading import Location
from shards.remote_reading import RemoteReader, open_reader
from shards.store import LocalStore, MemoryStore
from shards.stream import Stream
from shards.subset import Selection, create
from tests.shards.builders import small_dataset

SIZES = [100, 3_000, 40_000, 17, 90_000, 5_000, 65_000, 1]
BLOCK = 32_768


def shard(store: MemoryStore, name: str = "a.tar", *, dense: bool) -> tuple[list[Location], list[bytes]]:
    rng = np.random.default_rng(7)
    content, places, images = b"", [], []
    for number, size in enumerate(SIZES):
        content += b"\0" * 512
        image = rng.bytes(size)
        places.append((f"k{number}", len(content), size, google_crc32c.value(image)))
        images.append(image)
        content += image
    store.put_if_absent(name, content + b"\0" * 1024)
    end = places[-1][1] + places[-1][2] if dense else 0
    locations = [
        Location(key=key, shard=name, offset=offset, length=length, crc32c=crc, dense_end=end)
        for key, offset, length, crc in places
    ]
    return locations, images


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_samples_come_as_they_are(dense: bool, ahead: bool) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=dense)
    reader = RemoteReader(store, MemoryBlocks(1 << 20), block_bytes=BLOCK)
    if ahead:
        reader.prefetch(locations)
    assert reader.read(locations[::-1]) == images[::-1]
    assert reader.read(locations) == images
    reader.close()


def test_dense_shards_are_fetched_once() -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    reader = RemoteReader(store, MemoryBlocks(1 << 20), block_bytes=BLOCK)
    for location, image in zip(locations, images, strict=True):
        reader.prefetch([location])
        time.sleep(0.01)
        assert reader.read([location]) == [image]
    assert reader.bytes_read <= locations[-1].dense_end + BLOCK
    reader.close()


@pytest.mark.parametrize("budget", [0, BLOCK + 10, 3 * BLOCK])
def test_a_small_budget_costs_speed_not_samples(budget: int, tmp_path: Path) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    for blocks in (MemoryBlocks(budget), DiskBlocks(tmp_path, budget, origin="x")):
        reader = RemoteReader(store, blocks, block_bytes=BLOCK)
        reader.prefetch(locations)
        assert reader.read(locations) == images
        reader.close()
        assert blocks.size_bytes <= budget


def test_a_bad_block_in_the_cache_is_read_again(tmp_path: Path) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    blocks = DiskBlocks(tmp_path, 1 << 20, origin="x")
    reader = RemoteReader(store, blocks, block_bytes=BLOCK)
    reader.prefetch(locations)
    assert reader.read(locations) == images
    for file in tmp_path.iterdir():
        file.write_bytes(b"\xff" * file.stat().st_size)
    assert reader.read(locations) == images
    reader.close()


def test_bytes_that_are_bad_at_the_origin_are_an_error_for_that_sample() -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    store.objects["a.tar"] = store.objects["a.tar"].replace(images[1], images[1][:-1] + b"?")
    reader = RemoteReader(store, MemoryBlocks(1 << 20), block_bytes=BLOCK)
    read = reader.read(locations)
    assert isinstance(read[1], ShardError)
    assert "k1 in a.tar at offset" in str(read[1])
    assert [item for number, item in enumerate(read) if number != 1] == [*images[:1], *images[2:]]
    reader.close()


def test_the_disk_cache_serves_the_next_run_and_deletes_only_its_own(tmp_path: Path) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    mine = tmp_path / "thesis.tex"
    mine.write_text("not a block")
    old = tmp_path / ".partial-biovfm-abc"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    young = tmp_path / ".partial-biovfm-def"
    young.write_bytes(b"half")
    first = RemoteReader(store, DiskBlocks(tmp_path, 1 << 20, origin="x"), block_bytes=BLOCK)
    first.prefetch(locations)
    first.read(locations)
    first.close()
    second = RemoteReader(MemoryStore(), DiskBlocks(tmp_path, 1 << 20, origin="x"), block_bytes=BLOCK)
    assert second.read(locations) == images
    second.close()
    assert DiskBlocks(tmp_path, 0, origin="x").size_bytes == 0
    assert sorted(tmp_path.iterdir()) == [young, mine]


def test_local_stores_are_mapped(tmp_path: Path) -> None:
    assert open_reader(LocalStore(tmp_path)).lookahead_bytes == 0
    assert open_reader(MemoryStore(), cache=tmp_path / "cache").lookahead_bytes > 0


@pytest.mark.s3
def test_streaming_from_object_storage_is_streaming_from_disk(bucket: str, tmp_path: Path) -> None:
    local, remote = small_dataset(tmp_path / "data"), small_dataset(f"{bucket}/data")
    assert create(local, Selection()).digest == create(remote, Selection()).digest
    crops = (Crops(size_px=32),)
    with (
        Stream(local.url, crops=crops, global_batch=24, num_epochs=2) as one,
        Stream(remote.url, crops=crops, global_batch=24, num_epochs=2) as two,
    ):
        for expected, batch in zip(one, two, strict=True):
            assert batch.keys == expected.keys
            assert np.array_equal(batch.views[0], expected.views[0])


@pytest.mark.s3
def test_a_sparse_subset_reads_little_more_than_its_payload(bucket: str, tmp_path: Path) -> None:
    remote = small_dataset(f"{bucket}/data")
    lock = create(remote, Selection(where="ends_with(raw_path, '7.jpg')"))
    lock.write(tmp_path / "lock.yaml")
    with Stream(str(tmp_path / "lock.yaml"), global_batch=lock.num_samples, num_epochs=1) as stream:
        (batch,) = list(stream)
        assert len(batch.blobs) == 12
