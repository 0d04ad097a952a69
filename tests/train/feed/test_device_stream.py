"""The stream whose batches end on the device, on the CPU: a real dataset, and processes that are told to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from shards.dataset.columns import write_columns
from shards.decode import Crops
from shards.errors import ConfigError
from shards.stream import Stream
from tests.shards.builders import small_dataset
from train.feed.device_stream import DeviceStream
from train.feed.side import HostSide

pytestmark = pytest.mark.torch

CROPS = [Crops(num=2, size_px=32), Crops(size_px=16)]


class CopyingSide(HostSide):
    """The CPU as a device with memory of its own."""

    shares_memory = False


def stream(url: Path, **settings: Any) -> Stream:
    return Stream(url, crops=CROPS, global_batch=8, seed=3, num_threads=2, **settings)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feed") / "dataset"
    small_dataset(folder)
    return folder


@pytest.mark.parametrize("side", [HostSide, CopyingSide])
def test_batches_are_those_of_the_stream(dataset: Path, side: type[HostSide]) -> None:
    wanted = [
        ([view.copy() for view in batch.views], batch.keys, batch.epoch, batch.index)
        for batch in stream(dataset, num_epochs=2)
    ]
    got = [
        ([view.clone() for view in batch.views], batch.keys, batch.epoch, batch.index)
        for batch in DeviceStream(stream(dataset, num_epochs=2), side())
    ]
    assert [one[1:] for one in got] == [one[1:] for one in wanted]
    assert len(got) > 4
    for (mine, *_), (theirs, *_) in zip(got, wanted, strict=True):
        assert all(np.array_equal(a.numpy(), b) for a, b in zip(mine, theirs, strict=True))


def test_a_loop_goes_on_behind_the_last_batch_taken(dataset: Path) -> None:
    whole = [batch.keys for batch in DeviceStream(stream(dataset, num_epochs=1))]
    feed = DeviceStream(stream(dataset, num_epochs=1))
    seen = []
    for batch in feed:
        seen.append(batch.keys)
        if len(seen) == 2:
            break
    position = feed.state_dict()
    assert (position["epoch"], position["batch"]) == (0, 2)
    other = DeviceStream(stream(dataset, num_epochs=1))
    other.load_state_dict(position)
    assert seen + [batch.keys for batch in feed] == whole
    assert seen + [batch.keys for batch in other] == whole


def test_two_slots_are_the_least(dataset: Path) -> None:
    with pytest.raises(ConfigError, match="slots=1"):
        DeviceStream(stream(dataset), slots=1)


def test_memory_is_used_again(dataset: Path) -> None:
    places = [
        batch.views[0].data_ptr() for batch in DeviceStream(stream(dataset, num_epochs=4), CopyingSide(), slots=2)
    ]
    assert len(places) > 8
    assert len(set(places)) == 2


SCRIPT = """
import signal, sys, torch
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs inherit that it is ignored
from shards.dataset.columns import write_columns
from shards.decode import Crops
from shards.stream import Stream
from train.feed.device_stream import DeviceStream
stream = Stream(sys.argv[1], crops=[Crops(size_px=16)], global_batch=8, num_threads=2)
for batch in DeviceStream(stream, "cpu"):
    if batch.epoch == 1 and batch.index == 0:
        print("going", flush=True)
"""


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_loop_within_five_seconds(dataset: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(dataset)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        began = time.perf_counter()
        process.send_signal(number)
        try:
            ended = process.wait(30)
        finally:
            process.kill()
    assert time.perf_counter() - began < 5
    assert ended == -number


def test_views_are_tensors_of_the_device(dataset: Path) -> None:
    loop = iter(DeviceStream(stream(dataset), "cpu"))
    batch = next(loop)
    assert [view.device.type for view in batch.views] == ["cpu", "cpu"]
    assert [tuple(view.shape) for view in batch.views] == [(8, 2, 32, 32, 3), (8, 1, 16, 16, 3)]
    assert all(view.dtype == torch.uint8 for view in batch.views)
    loop.close()


@pytest.mark.parametrize("side", [HostSide, CopyingSide])
def test_own_columns_come_with_masks(tmp_path: Path, side: type[HostSide]) -> None:
    made = small_dataset(tmp_path / "own")
    keys = made.query("SELECT key FROM samples ORDER BY key")["key"].to_pylist()[:100]
    given = {"age": pa.array(range(100), pa.int64()), "day": pa.array([10] * 100, pa.date32())}
    write_columns(made, pa.table({"key": keys, **given}), note={})
    feed = DeviceStream(Stream(made.url, crops=CROPS, global_batch=24, num_epochs=1, columns=["age", "day"]), side())
    missing = 0
    for batch in feed:
        known = ~batch.missing["age"]
        missing += int(batch.missing["age"].sum())
        places = [keys.index(key) for key, there in zip(batch.keys, known.tolist(), strict=True) if there]
        assert batch.columns["age"][known].tolist() == places
        assert (batch.columns["day"][known] == 10).all()
    assert missing == 20
    feed.close()
