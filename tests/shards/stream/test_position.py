"""A position goes on in the stream that it came from, and in no other."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SubsetError
from shards.stream import Mixture, Stream
from shards.stream.digests import compare_ranks
from shards.subset import Selection, create
from tests.shards.builders import add_source, jpeg, small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("position") / "data")


@pytest.mark.slow
def test_a_position_is_json_and_names_all_that_decides_what_comes_next(dataset: Dataset) -> None:
    stream = Stream(dataset.url, global_batch=24, seed=3, epoch=2, batch=1, mixture=Mixture(temperature=2))
    state = json.loads(json.dumps(stream.state_dict()))
    assert {name: state[name] for name in ("epoch", "batch", "format", "seed", "global_batch", "last")} == {
        "epoch": 2,
        "batch": 1,
        "format": 2,
        "seed": 3,
        "global_batch": 24,
        "last": "drop",
    }
    assert state["mixture"]["temperature"] == 2
    assert state["order"] == stream.digests.order
    again = Stream(dataset.url, global_batch=24, seed=3, mixture=Mixture(temperature=2), world_size=4, rank=1)
    again.load_state_dict(state)
    assert (again.epoch, again.batch) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("other", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"global_batch": 12}, "global_batch"),
        ({"last": "pad"}, "last"),
        ({"mixture": Mixture(by="source")}, "mixture"),
    ],
)
def test_a_position_of_other_settings_is_refused(dataset: Dataset, other: dict[str, Any], name: str) -> None:
    state = Stream(dataset.url, global_batch=24).state_dict()
    stream = Stream(dataset.url, **{"global_batch": 24, **other})
    with pytest.raises(ConfigError, match=f"the position is of a stream with {name}="):
        stream.load_state_dict(state)


def test_a_position_of_other_samples_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    create(dataset, Selection(modality=("CT",))).write(tmp_path / "ct.lock.yaml")
    state = Stream(tmp_path / "ct.lock.yaml", global_batch=24).state_dict()
    with pytest.raises(SubsetError, match="the position saw other samples: digest md5sum128:"):
        Stream(dataset.url, global_batch=24).load_state_dict(state)


@pytest.mark.slow
def test_a_grown_dataset_is_another_one(tmp_path: Path) -> None:
    grown = small_dataset(tmp_path / "data")
    state = Stream(grown.url, global_batch=24).state_dict()
    add_source(grown, "later", "CT", [jpeg(999)])
    with pytest.raises(SubsetError, match="saw other samples"):
        Stream(grown.url, global_batch=24).load_state_dict(state)


def test_an_earlier_position_is_read_with_a_line(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(dataset.url, global_batch=24)
    with caplog.at_level(logging.WARNING):
        stream.load_state_dict({"epoch": 1, "batch": 2})
    assert (stream.epoch, stream.batch) == (1, 2)
    assert "pins neither samples nor order" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("state", [{}, {"epoch": 1}, {"epoch": 0, "batch": 0, "format": 3}])
def test_what_is_no_position_is_refused(dataset: Dataset, state: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Stream(dataset.url, global_batch=24).load_state_dict(state)


@pytest.mark.parametrize("prefetch", [0, -1])
def test_nothing_under_way_is_refused(dataset: Dataset, prefetch: int) -> None:
    with pytest.raises(ConfigError, match="at least one batch"):
        Stream(dataset.url, global_batch=24, prefetch=prefetch)


def test_a_stream_is_neither_pickled_nor_copied(dataset: Dataset) -> None:
    stream = Stream(dataset.url, global_batch=24)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(ConfigError, match="state_dict"):
            attempt(stream)  # type: ignore[operator]


@pytest.mark.slow
def test_another_packing_streams_only_where_it_is_accepted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, per_shard in (("one", 5), ("two", 8)):
        made = Dataset.create(str(tmp_path / name))
        add_source(made, "alpha", "CT", [jpeg(n) for n in range(20)], per_shard=per_shard)
    path = tmp_path / "ct.lock.yaml"
    create(Dataset.open(str(tmp_path / "one")), Selection()).write(path)
    with pytest.raises(SubsetError, match="packed into other shards"):
        Stream(path, dataset=tmp_path / "two", global_batch=5)
    with caplog.at_level(logging.WARNING):
        stream = Stream(path, dataset=tmp_path / "two", global_batch=5, accept_packing=True)
    assert "the order of an epoch differs" in caplog.text
    assert stream.digests.samples == Stream(path, global_batch=5).digests.samples
    assert stream.digests.order != Stream(path, global_batch=5).digests.order


def test_lanes_are_a_part_of_the_order_that_a_position_holds(dataset: Dataset, tmp_path: Path) -> None:
    def stream_of(name: str, most_lanes: int) -> Stream:
        path = tmp_path / f"{name}.lock.yaml"
        create(dataset, Selection(), most_lanes=most_lanes).write(path)
        return Stream(path, global_batch=120)

    few, many = stream_of("few", 64), stream_of("many", 128)
    assert (few.settings.num_lanes, many.settings.num_lanes) == (60, 120)
    assert few.digests.order == many.digests.order
    with pytest.raises(
        ConfigError, match=r"with most_lanes=64, this one has most_lanes=128.*give the lock of that run"
    ):
        many.load_state_dict(few.state_dict())
    with pytest.raises(SubsetError, match="ranks 0 and 1 differ in the most lanes"):
        compare_ranks([few.digests.as_dict(), many.digests.as_dict()])
    earlier = {name: value for name, value in few.state_dict().items() if name != "most_lanes"}
    few.load_state_dict(earlier)  # of a release that knew 64 alone
    with pytest.raises(ConfigError, match="most_lanes"):
        many.load_state_dict(earlier)


@pytest.mark.slow
def test_an_epoch_of_more_lanes_has_the_same_samples_on_any_topology(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "many.lock.yaml"
    create(dataset, Selection(), most_lanes=128).write(path)

    def keys(world_size: int) -> list[str]:
        ranks = [list(Stream(path, global_batch=120, rank=rank, world_size=world_size, num_epochs=1).walk_keys())
                 for rank in range(world_size)]  # fmt: skip
        return [name for parts in zip(*ranks, strict=True) for _, _, names in parts for name in names]

    one = keys(1)
    assert len(set(one)) == 120
    assert keys(3) == one
    plain = [name for _, _, names in Stream(dataset.url, global_batch=120, num_epochs=1).walk_keys() for name in names]
    assert plain != one
    assert sorted(plain) == sorted(one)
