"""The stream over real shards: complete, elastic, resumable, robust, clean on exit."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from shards.dataset.dataset import Dataset
from shards.decode import Crops
from shards.errors import ConfigError, ShardError, SubsetError
from shards.stream.stream import Batch, Stream
from shards.subset.lock import Selection, create
from tests.shards.builders import add_source, jpeg, small_dataset

ONE = (Crops(size_px=32),)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("stream") / "data")


def take(stream: Stream, num: int) -> list[Batch]:
    batches = []
    for batch in stream:
        batches.append(batch)
        if len(batches) == num:
            break
    return batches


def test_an_epoch_holds_every_sample_once(dataset: Dataset) -> None:
    stream = Stream(dataset.url, crops=ONE, global_batch=24, num_epochs=1)
    batches = list(stream)
    keys = [key for batch in batches for key in batch.keys]
    assert stream.batches_per_epoch == len(batches) == 5
    assert len(keys) == len(set(keys)) == 120
    assert batches[0].views[0].shape == (24, 1, 32, 32, 3)
    assert stream.stats().images == 120
    assert stream.stats().num_bad == 0


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_any_number_of_ranks_sees_the_same_batches_and_pixels(dataset: Dataset, world_size: int) -> None:
    whole = take(Stream(dataset.url, crops=ONE, global_batch=24, seed=3), 6)
    ranks = [
        take(Stream(dataset.url, crops=ONE, global_batch=24, seed=3, rank=rank, world_size=world_size), 6)
        for rank in range(world_size)
    ]
    for number, batch in enumerate(whole):
        assert tuple(key for rank in ranks for key in rank[number].keys) == batch.keys
        assert np.array_equal(np.concatenate([rank[number].views[0] for rank in ranks]), batch.views[0])


@pytest.mark.slow
def test_resuming_gives_what_an_uninterrupted_run_gives(dataset: Dataset) -> None:
    whole = take(Stream(dataset.url, crops=ONE, global_batch=24), 9)
    first = Stream(dataset.url, crops=ONE, global_batch=24)
    take(first, 4)
    state = first.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 4)
    second = Stream(dataset.url, crops=ONE, global_batch=24, num_threads=1)
    second.load_state_dict(state)
    for batch, expected in zip(take(second, 5), whole[4:], strict=True):
        assert (batch.epoch, batch.index, batch.keys) == (expected.epoch, expected.index, expected.keys)
        assert np.array_equal(batch.views[0], expected.views[0])


def test_a_second_loop_goes_on(dataset: Dataset) -> None:
    stream = Stream(dataset.url, crops=ONE, global_batch=24)
    assert [batch.index for batch in take(stream, 2) + take(stream, 2)] == [0, 1, 2, 3]


def test_batches_that_are_kept_stay_as_they_were(dataset: Dataset) -> None:
    batches = take(Stream(dataset.url, crops=ONE, global_batch=24), 10)
    again = take(Stream(dataset.url, crops=ONE, global_batch=24), 10)
    for kept, fresh in zip(batches, again, strict=True):
        assert np.array_equal(kept.views[0], fresh.views[0])


def test_memory_is_used_again_when_batches_are_let_go(dataset: Dataset) -> None:
    stream = Stream(dataset.url, crops=ONE, global_batch=24, num_epochs=6)
    places = {batch.views[0].ctypes.data for batch in stream}
    assert len(places) <= 6


def test_compressed_images_come_as_they_are_stored(dataset: Dataset) -> None:
    (batch,) = take(Stream(dataset.url, global_batch=24), 1)
    assert all(blob[:2] == b"\xff\xd8" for blob in batch.blobs)
    assert batch.views == ()


@pytest.mark.slow
def test_keys_alone_are_the_keys_of_the_stream(dataset: Dataset) -> None:
    batches = take(Stream(dataset.url, crops=ONE, global_batch=24), 7)
    listed = Stream(dataset.url, global_batch=24).walk_keys()
    for batch in batches:
        assert next(listed) == (batch.epoch, batch.index, list(batch.keys))


def test_a_lock_streams_its_samples_only(dataset: Dataset, tmp_path: Path) -> None:
    lock = create(dataset, Selection(modality=("CT", "Fundus")))
    lock.write(tmp_path / "lock.yaml")
    stream = Stream(str(tmp_path / "lock.yaml"), crops=ONE, global_batch=16, num_epochs=1)
    keys = {key for batch in stream for key in batch.keys}
    assert stream.digest == lock.digest
    assert len(keys) == 80
    assert not any(key.startswith("beta") for key in keys)


def test_a_lock_of_a_sparse_selection_streams_the_right_rows(dataset: Dataset, tmp_path: Path) -> None:
    lock = create(dataset, Selection(where="ends_with(raw_path, '7.jpg')"))
    lock.write(tmp_path / "lock.yaml")
    with Stream(str(tmp_path / "lock.yaml"), global_batch=lock.num_samples, num_epochs=1) as stream:
        (batch,) = list(stream)
    expected = {jpeg(n, gray=n >= 100) for n in range(7, 120, 10)}
    assert {bytes(blob) for blob in batch.blobs} == expected


def test_a_changed_dataset_under_a_lock_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    lock = create(dataset, Selection()).model_copy(update={"digest": "sha256:0"})
    lock.write(tmp_path / "lock.yaml")
    with pytest.raises(SubsetError, match="changed under the lock"):
        Stream(str(tmp_path / "lock.yaml"), global_batch=8)


@pytest.fixture
def damaged(tmp_path: Path) -> Dataset:
    """A dataset in which three samples are bad: garbage by the index's own account, and a flipped byte on disk."""
    dataset = Dataset.create(str(tmp_path / "damaged"))
    images = [jpeg(n) for n in range(40)]
    images[5] = images[5][:200]
    images[11] = b"this was never a picture"
    add_source(dataset, "alpha", "CT", images)
    shard = min((tmp_path / "damaged" / "shards").rglob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[512 + 300] ^= 0xFF
    shard.write_bytes(content)
    return dataset


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_bad_samples_are_replaced_alike_on_every_topology(damaged: Dataset, world_size: int) -> None:
    whole = take(Stream(damaged.url, crops=ONE, global_batch=8), 5)
    streams = [
        Stream(damaged.url, crops=ONE, global_batch=8, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    parts = [take(stream, 5) for stream in streams]
    for number, batch in enumerate(whole):
        assert tuple(key for part in parts for key in part[number].keys) == batch.keys
        assert np.array_equal(np.concatenate([part[number].views[0] for part in parts]), batch.views[0])
    assert sum(len(batch.substituted) for batch in whole) == 3
    reasons = {bad.reason for stream in streams for bad in stream.stats().bad_samples}
    assert "corrupt" in reasons
    assert any("fails its checksum" in reason for reason in reasons)


def test_bad_samples_raise_on_request(damaged: Dataset) -> None:
    stream = Stream(damaged.url, crops=ONE, global_batch=8, on_bad="raise", num_epochs=1)
    with pytest.raises(ShardError, match="alpha-"):
        list(stream)


def test_a_missing_shard_stops_the_stream_with_its_name(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    gone = min((tmp_path / "data" / "shards").rglob("*.tar"))
    gone.unlink()
    with pytest.raises(Exception, match=gone.name):
        list(Stream(dataset.url, crops=ONE, global_batch=8, num_epochs=1))


def test_leaving_in_any_way_stops_the_threads(dataset: Dataset) -> None:
    def consumer_fails() -> None:
        for _ in Stream(dataset.url, crops=ONE, global_batch=8):
            raise ZeroDivisionError

    take(Stream(dataset.url, crops=ONE, global_batch=8), 2)
    with pytest.raises(ZeroDivisionError):
        consumer_fails()
    ours = {thread.name for thread in threading.enumerate() if thread.name.startswith("biovfm")}
    assert ours <= {"biovfm-waits"}  # the one of the process that speaks of long waits; it is no stream's


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"global_batch": 1000}, "fewer than the global batch"),
        ({"global_batch": 10, "world_size": 3}, "3 ranks do not divide"),
        ({"global_batch": 10, "batch": 99}, "no batch 99"),
    ],
)
def test_wrong_arguments_say_so(dataset: Dataset, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Stream(dataset.url, crops=ONE, **arguments)


@pytest.mark.process
def test_a_loop_left_open_at_the_end_of_the_program_is_no_trouble(dataset: Dataset) -> None:
    code = (
        "from shards.stream.stream import Stream; from shards.decode import Crops\n"
        f"open_loop = iter(Stream({dataset.url!r}, crops=(Crops(size_px=32),), global_batch=8))\n"
        "print(next(open_loop).index)\n"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=60, check=False
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "0\n", "")


@pytest.mark.process
@pytest.mark.parametrize("ending", ["interrupt", "kill"])
def test_a_process_that_dies_leaves_nothing_that_stops_the_next(dataset: Dataset, ending: str) -> None:
    code = (
        "import os, sys, signal; from shards.stream.stream import Stream; from shards.decode import Crops\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs inherit that it is ignored
        f"for batch in Stream({dataset.url!r}, crops=(Crops(size_px=32),), global_batch=8):\n"
        f"    os.kill(os.getpid(), signal.{'SIGINT' if ending == 'interrupt' else 'SIGKILL'})\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, timeout=60, check=False
    )
    assert process.returncode in ((-9,) if ending == "kill" else (1, 130, -2))
    assert len(take(Stream(dataset.url, crops=ONE, global_batch=8), 2)) == 2
    assert not [file for file in Path("/dev/shm").iterdir() if "biovfm" in file.name]
