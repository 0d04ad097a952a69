"""Reading from object storage: blocks and ranges, caches under a budget, bad bytes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.s3_server import Server
from shards.decode import Crops
from shards.errors import ShardError
from shards.read.block_cache import BlockId, DiskBlocks, MemoryBlocks
from shards.read.locations import Location
from shards.read.remote import RemoteReader, open_reader, pieces_of
from shards.store import LocalStore, MemoryStore
from shards.stream.stream import Stream
from shards.subset.lock import Selection, create
from tests.faults import Fault, FaultProxy
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


def places_in(locations: list[Location]) -> NDArray[np.int64]:
    return np.array([location[2:] for location in locations], np.int64)


def reader_of(store: MemoryStore, locations: list[Location], blocks: DiskBlocks | int = 1 << 20) -> RemoteReader:
    """A reader whose blocks are a cache on disk, or in memory under a budget."""

    def places_of(shard: str) -> NDArray[np.int64]:
        return places_in(locations)

    def pieces(block: BlockId) -> list[tuple[int, int]]:
        return pieces_of(places_of, block, BLOCK)

    kept = MemoryBlocks(blocks, pieces) if isinstance(blocks, int) else blocks
    return RemoteReader(store, kept, block_bytes=BLOCK)


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("ahead", [True, False])
def test_samples_come_as_they_are(dense: bool, ahead: bool) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=dense)
    reader = reader_of(store, locations)
    if ahead:
        reader.prefetch(locations)
    assert reader.read(locations[::-1]) == images[::-1]
    assert reader.read(locations) == images
    reader.close()


def test_dense_shards_are_fetched_once() -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    reader = reader_of(store, locations)
    for location, image in zip(locations, images, strict=True):
        reader.prefetch([location])
        time.sleep(0.01)
        assert reader.read([location]) == [image]
    assert reader.bytes_read <= locations[-1].dense_end + BLOCK
    reader.close()


def test_what_has_been_read_is_let_go() -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    blocks = MemoryBlocks(1 << 20, lambda block: pieces_of(lambda _: places_in(locations), block, BLOCK))
    reader = RemoteReader(store, blocks, block_bytes=BLOCK)
    reader.prefetch(locations)
    for number, (location, image) in enumerate(zip(locations, images, strict=True)):
        assert reader.read([location]) == [image]
        left = sum(map(len, images[number + 1 :]))
        assert blocks.memory_bytes <= left
    assert blocks.memory_bytes == 0
    reader.close()


def test_two_epochs_may_want_the_same_block_at_once() -> None:
    """A sample whose block is under way may be fetched by itself, so the least of a few attempts is looked at."""
    store = MemoryStore()
    locations, images = shard(store, dense=True)

    def bytes_read() -> int:
        reader = reader_of(store, locations)
        reader.prefetch(locations)
        first = reader.read(locations[:4])
        reader.prefetch(locations)
        second = reader.read(locations[4:])
        assert [*first, *second] == images
        assert reader.read(locations) == images
        reader.close()
        return reader.bytes_read

    assert min(bytes_read() for _ in range(8)) <= 2 * locations[-1].dense_end + 2 * BLOCK


def test_pieces_that_a_resumed_epoch_never_reads_are_forgotten() -> None:
    store = MemoryStore()
    locations, _ = shard(store, dense=True)
    blocks = MemoryBlocks(1 << 20, lambda block: pieces_of(lambda _: places_in(locations), block, BLOCK))
    blocks.put(("a.tar", 0), store.read_range("a.tar", 0, BLOCK))
    assert blocks.memory_bytes > 0
    blocks.forget_unread(now=100, lifetime=100)
    assert blocks.memory_bytes > 0
    blocks.forget_unread(now=101, lifetime=100)
    assert blocks.memory_bytes == 0


def test_what_is_announced_stays_until_it_is_read_however_slow_the_reader_is() -> None:
    store = MemoryStore()
    first, images = shard(store, "a.tar", dense=True)
    second, _ = shard(store, "b.tar", dense=True)
    reader = reader_of(store, first, 1 << 30)
    reader.reserve(1, 1, first)  # a rank with a lane of its own, whose window closes soon
    reader.prefetch(first[:1])  # the first batch comes sample by sample
    for location in [*first[1:], *second]:
        reader.prefetch([location])
        time.sleep(0.01)
    assert reader.read([*first, *second]) == images * 2
    assert reader.bytes_read <= first[-1].dense_end + second[-1].dense_end + first[0].length
    reader.close()


def test_windows_that_do_not_fit_are_read_sample_by_sample() -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    reader = reader_of(store, locations, 1 << 20)
    reader.reserve(64, 256, locations)
    assert reader.held_limit_bytes == reader.lookahead_bytes
    for _ in range(2):
        reader.prefetch(locations)
        assert reader.read(locations) == images
    assert reader.bytes_read <= 2 * locations[-1].dense_end
    reader.close()


def test_room_ends_where_the_limit_is_reached() -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    reader = reader_of(store, locations, 1 << 30)
    reader.reserve(1, 8, locations)
    reader.lookahead_bytes += sum(SIZES) - reader.held_limit_bytes
    assert reader.has_room()
    reader.prefetch(locations)
    assert not reader.has_room()
    assert reader.read(locations) == images
    assert reader.has_room()
    reader.close()


def test_processes_that_share_a_folder_read_what_the_others_put_there(tmp_path: Path) -> None:
    mine, other = (DiskBlocks(tmp_path, 1 << 20, origin="x") for _ in range(2))
    mine.put(("a", 0), b"abcd")
    assert other.claim(("a", 0), 0)
    assert other.take(("a", 0), 1, 2) == b"bc"
    assert (mine.size_bytes, other.size_bytes) == (4, 0)  # each counts and removes its own
    mine.drop(("a", 0))
    assert not other.claim(("a", 0), 0)
    assert other.take(("a", 0), 0, 4) is None


@pytest.mark.parametrize("budget", [0, BLOCK + 10, 3 * BLOCK])
def test_a_small_budget_costs_speed_not_samples(budget: int, tmp_path: Path) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    disk = DiskBlocks(tmp_path, budget, origin="x")
    for blocks in (budget, disk):
        reader = reader_of(store, locations, blocks)
        reader.prefetch(locations)
        assert reader.read(locations) == images
        reader.close()
    assert disk.size_bytes <= budget


def test_a_bad_block_in_the_cache_is_read_again(tmp_path: Path) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=True)
    blocks = DiskBlocks(tmp_path, 1 << 20, origin="x")
    reader = reader_of(store, locations, blocks)
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
    reader = reader_of(store, locations)
    read = reader.read(locations)
    assert isinstance(read[1], ShardError)
    assert "k1 in a.tar at offset" in str(read[1])
    assert [item for number, item in enumerate(read) if number != 1] == [*images[:1], *images[2:]]
    reader.close()


@pytest.mark.parametrize("dense", [True, False])
def test_a_shard_that_was_cut_costs_only_the_samples_behind_the_cut(dense: bool) -> None:
    store = MemoryStore()
    locations, images = shard(store, dense=dense)
    store.objects["a.tar"] = store.objects["a.tar"][: locations[5].offset + 10]
    reader = reader_of(store, locations)
    reader.prefetch(locations)
    read = reader.read(locations)
    assert read[:5] == images[:5]
    assert all(isinstance(item, ShardError) for item in read[5:])
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
    first = reader_of(store, locations, DiskBlocks(tmp_path, 1 << 20, origin="x"))
    first.prefetch(locations)
    first.read(locations)
    first.close()
    second = reader_of(MemoryStore(), locations, DiskBlocks(tmp_path, 1 << 20, origin="x"))
    assert second.read(locations) == images
    second.close()
    assert DiskBlocks(tmp_path, 0, origin="x").size_bytes == 0
    assert sorted(tmp_path.iterdir()) == [young, mine]


def test_local_stores_are_mapped(tmp_path: Path) -> None:
    assert open_reader(LocalStore(tmp_path)).ahead is None
    assert open_reader(MemoryStore(), cache=tmp_path / "cache").ahead is not None


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
def test_a_stream_tells_its_retries(bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    remote = small_dataset(f"{bucket}/data")
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with Stream(remote.url, global_batch=24, num_epochs=1) as stream:
            assert stream.stats().retries == 0
            proxy.add(Fault.answer(503, "SlowDown"), times=3, path=r"\.tar")
            keys = [key for batch in stream for key in batch.keys]
            assert len(set(keys)) == len(keys) > 0
            assert stream.stats().retries >= 3


@pytest.mark.s3
def test_a_flipped_byte_on_the_way_is_read_again_and_counted(
    bucket: str, s3_env: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = small_dataset(f"{bucket}/data")
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with Stream(remote.url, global_batch=24, num_epochs=1, on_bad="raise") as stream:
            proxy.add(Fault.flip(50), times=2, path=r"\.tar")
            assert sum(len(batch.keys) for batch in stream) == stream.batches_per_epoch * 24
            assert stream.stats().retries == 2
            assert stream.stats().num_bad == 0


@pytest.mark.s3
def test_a_sparse_subset_reads_little_more_than_its_payload(bucket: str, tmp_path: Path) -> None:
    remote = small_dataset(f"{bucket}/data")
    lock = create(remote, Selection(where="ends_with(raw_path, '7.jpg')"))
    lock.write(tmp_path / "lock.yaml")
    with Stream(str(tmp_path / "lock.yaml"), global_batch=lock.num_samples, num_epochs=1) as stream:
        (batch,) = list(stream)
        assert len(batch.blobs) == 12
