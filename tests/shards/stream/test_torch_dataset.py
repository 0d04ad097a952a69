"""The PyTorch face of the stream."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from shards.dataset.columns import write_columns
from shards.decode import Crops
from shards.errors import ConfigError
from shards.stream.stream import Stream
from shards.stream.torch_dataset import StreamDataset, channels_first, column_tensors
from tests.shards.builders import small_dataset

pytestmark = pytest.mark.torch

CROPS = (Crops(num=2, size_px=32), Crops(num=3, size_px=16))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_dataset(tmp_path_factory.mktemp("torch") / "data").url


def test_batches_are_tensors_over_the_stream_s_memory() -> None:
    pixels = np.zeros((4, 2, 8, 8, 3), np.uint8)
    tensor = channels_first(pixels)
    assert tensor.shape == (4, 2, 3, 8, 8)
    assert tensor[:, 0].is_contiguous(memory_format=torch.channels_last) or tensor.stride(-3) == 1
    pixels[1, 1, 2, 3, 0] = 7
    assert tensor[1, 1, 0, 2, 3] == 7


def test_a_data_loader_goes_on_from_its_state(url: str) -> None:
    def loader(dataset: StreamDataset) -> DataLoader:
        return DataLoader(dataset, batch_size=None, num_workers=0)

    whole = StreamDataset(Stream(url, crops=CROPS, global_batch=24, num_epochs=1))
    batches = [(batch["keys"], [view.clone() for view in batch["views"]]) for batch in loader(whole)]
    assert len(batches) == 5
    assert [tuple(view.shape) for view in batches[0][1]] == [(24, 2, 3, 32, 32), (24, 3, 3, 16, 16)]

    first = StreamDataset(Stream(url, crops=CROPS, global_batch=24, num_epochs=1))
    for _, _ in zip(range(2), loader(first), strict=False):
        pass
    second = StreamDataset(Stream(url, crops=CROPS, global_batch=24, num_epochs=1))
    second.load_state_dict({"epoch": 0, "batch": 2})
    for (keys, views), batch in zip(batches[2:], loader(second), strict=True):
        assert batch["keys"] == keys
        assert all(torch.equal(one, two) for one, two in zip(views, batch["views"], strict=True))


@pytest.mark.slow
def test_worker_processes_are_refused(url: str, tmp_path: Path) -> None:
    dataset = StreamDataset(Stream(url, crops=CROPS, global_batch=24))
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork")
    with pytest.raises(Exception, match="num_workers=0"):
        next(iter(loader))


def test_a_second_loop_is_the_next_epoch(url: str) -> None:
    loader = DataLoader(StreamDataset(Stream(url, crops=CROPS, global_batch=24, num_epochs=1)), batch_size=None)
    assert len(loader) == 5
    seen = [[(batch["epoch"], batch["index"]) for batch in loader] for _ in range(3)]
    assert seen == [[(epoch, index) for index in range(5)] for epoch in range(3)]


def test_a_loop_that_was_left_is_finished_before_the_next_begins(url: str) -> None:
    dataset = StreamDataset(Stream(url, crops=CROPS, global_batch=24, num_epochs=2))
    assert len(dataset) == 10
    assert len(list(zip(range(7), dataset, strict=False))) == 7
    assert [(batch["epoch"], batch["index"]) for batch in dataset] == [(1, 2), (1, 3), (1, 4)]
    assert next(iter(dataset))["epoch"] == 2


def test_an_endless_stream_has_no_length(url: str) -> None:
    with pytest.raises(TypeError, match="num_epochs=1 for a length"):
        len(StreamDataset(Stream(url, global_batch=24)))


def test_pickling_says_what_to_do(url: str) -> None:
    dataset = StreamDataset(Stream(url, global_batch=24))
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(ConfigError, match=r"state_dict\(\).*num_workers=0"):
            attempt(dataset)  # type: ignore[operator]


@pytest.mark.slow
def test_spawned_workers_are_refused_in_one_line(url: str) -> None:
    dataset = StreamDataset(Stream(url, crops=CROPS, global_batch=24))
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn")
    with pytest.raises(ConfigError, match="num_workers=0"):
        next(iter(loader))


def test_own_columns_are_tensors_with_masks(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    keys = dataset.query("SELECT key FROM samples ORDER BY key")["key"].to_pylist()[:100]
    given = {
        "age": pa.array(range(100), pa.int64()),
        "stage": pa.array(["a", "b"] * 50),
        "day": pa.array([10] * 100, pa.date32()),
    }
    write_columns(dataset, pa.table({"key": keys, **given}), note={})
    stream = Stream(dataset.url, crops=CROPS, global_batch=24, num_epochs=1, columns=["age", "stage", "day"])
    batches = list(DataLoader(StreamDataset(stream), batch_size=None, num_workers=0))
    assert sum(int(batch["missing"]["age"].sum()) for batch in batches) == 20
    assert {batch["columns"]["age"].dtype for batch in batches} == {torch.int64}
    assert {batch["columns"]["stage"].dtype for batch in batches} == {torch.int32}
    for batch in batches:
        known = ~batch["missing"]["day"]
        assert (batch["columns"]["day"][known] == 10).all()
        places = [keys.index(key) for key, there in zip(batch["keys"], known.tolist(), strict=True) if there]
        assert batch["columns"]["age"][known].tolist() == places
    assert StreamDataset(stream).categories.keys() == {"stage"}
    moved = column_tensors(next(iter(stream)).columns, "meta")
    assert moved["columns"]["age"].device.type == "meta"
