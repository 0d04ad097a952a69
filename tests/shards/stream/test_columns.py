"""Own columns in the batch: types, masks, substitutes, versions, and files for what is large."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shards.dataset.columns import write_columns
from shards.dataset.dataset import Dataset
from shards.decode import Crops
from shards.errors import ConfigError, SampleIndexError, SubsetError
from shards.stream import columns as module
from shards.stream.digests import compare_ranks
from shards.stream.stream import Batch, Stream
from shards.subset import Selection, create
from tests.shards.builders import add_source, jpeg, small_dataset

ONE = (Crops(size_px=16),)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A number of each key's own, none for every fifth sample."""
    made = small_dataset(tmp_path / "data")
    write(made, start=0)
    return made


def keys_of(dataset: Dataset) -> list[str]:
    keys: list[str] = dataset.query("SELECT key FROM samples ORDER BY key")["key"].to_pylist()
    return keys


def write(dataset: Dataset, *, start: int) -> None:
    keys = keys_of(dataset)
    known = [number % 5 > 0 for number in range(len(keys))]

    def column(values: list[object], kind: pa.DataType) -> pa.Array:
        return pa.array([value if there else None for value, there in zip(values, known, strict=True)], kind)

    table = {
        "age": column([start + number for number in range(len(keys))], pa.int64()),
        "score": column([number / 2 for number in range(len(keys))], pa.float64()),
        "good": column([number % 2 == 0 for number in range(len(keys))], pa.bool_()),
        "stage": column([f"T{number % 3}" for number in range(len(keys))], pa.string()),
        "day": column([date(2020, 1, 1)] * len(keys), pa.date32()),
        "seen": column([datetime(2020, 1, 1, 12, tzinfo=UTC)] * len(keys), pa.timestamp("us", "UTC")),
    }
    write_columns(dataset, pa.table({"key": keys, **table}), replace=True, note={})


def one_epoch(stream: Stream) -> list[Batch]:
    with stream:
        return list(stream)


ALL = ("age", "score", "good", "stage", "day", "seen")


def test_every_type_comes_with_a_mask(dataset: Dataset) -> None:
    number = {key: place for place, key in enumerate(keys_of(dataset))}
    for batch in one_epoch(Stream(dataset.url, global_batch=24, num_epochs=1, columns=ALL)):
        places = np.array([number[key] for key in batch.keys])
        missing = places % 5 == 0
        for name in ALL:
            assert np.array_equal(batch.columns[name].missing, missing)
        found = {name: column.values[~missing] for name, column in batch.columns.items()}
        assert np.array_equal(found["age"], places[~missing])
        assert np.array_equal(found["score"], places[~missing] / 2)
        assert np.array_equal(found["good"], places[~missing] % 2 == 0)
        assert [word for word in batch.columns["stage"].words() if word] == [f"T{n % 3}" for n in places[~missing]]
        assert (found["day"] == np.datetime64("2020-01-01")).all()
        assert (found["seen"] == np.datetime64("2020-01-01T12")).all()
        assert np.isnan(batch.columns["score"].values[missing]).all()


@pytest.mark.slow
def test_a_sparse_lock_and_a_mapped_file_give_the_same(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(dataset.url).parent / "a.lock.yaml"
    create(dataset, Selection(where="stage = 'T1'", fraction=0.8)).write(path)
    first = one_epoch(Stream(path, crops=ONE, global_batch=4, num_epochs=1, columns=["age"]))
    monkeypatch.setattr(module, "IN_MEMORY_BYTES", 0)
    second = one_epoch(Stream(path, crops=ONE, global_batch=4, num_epochs=1, columns=["age"]))
    number = {key: place for place, key in enumerate(keys_of(dataset))}
    for one, two in zip(first, second, strict=True):
        ages = one.columns["age"].values
        assert ages.tolist() == two.columns["age"].values.tolist() == [number[key] for key in one.keys]


def test_a_substitute_brings_its_own_values(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    add_source(dataset, "alpha", "CT", [b"\xff\xd8 damaged", *(jpeg(number) for number in range(15))])
    write(dataset, start=0)
    number = {key: place for place, key in enumerate(keys_of(dataset))}
    (batch,) = one_epoch(Stream(dataset.url, crops=ONE, global_batch=16, num_epochs=1, columns=["age"]))
    assert len(batch.substituted) == 1
    ages = batch.columns["age"]
    assert all(miss or age == number[key] for key, age, miss in zip(batch.keys, ages.values, ages.missing, strict=True))


def test_without_columns_nothing_is_different(dataset: Dataset) -> None:
    stream = Stream(dataset.url, global_batch=24, num_epochs=1)
    assert one_epoch(stream)[0].columns == {}
    assert "columns" not in stream.state_dict()
    assert "columns" not in stream.digests.as_dict()


@pytest.mark.slow
def test_a_position_of_other_values_is_refused_and_its_version_can_be_asked_for(dataset: Dataset) -> None:
    state = Stream(dataset.url, global_batch=24, columns=["age", "stage"]).state_dict()
    assert state["columns_version"] == 0
    write(dataset, start=500)
    later = Stream(dataset.url, global_batch=24, columns=["age", "stage"])
    with pytest.raises(SubsetError, match="other values in age: version 0 of the columns, here 1"):
        later.load_state_dict(state)
    Stream(dataset.url, global_batch=24, columns=["stage"]).load_state_dict(state)
    Stream(dataset.url, global_batch=24, columns=["age"], columns_version=0).load_state_dict(state)
    Stream(dataset.url, global_batch=24).load_state_dict(state)
    earlier = Stream(dataset.url, global_batch=24, columns=["age"], columns_version=0)
    with pytest.raises(SubsetError, match="columns"):
        compare_ranks([earlier.digests.as_dict(), later.digests.as_dict()])


@pytest.mark.slow
def test_a_lock_gives_the_values_that_it_pins(dataset: Dataset) -> None:
    path = Path(dataset.url).parent / "a.lock.yaml"
    create(dataset, Selection(where="age > 100")).write(path)
    write(dataset, start=500)
    (batch,) = one_epoch(Stream(path, global_batch=15, num_epochs=1, columns=["age"]))
    assert batch.columns["age"].values.max() < 120


def test_what_is_not_there_is_said_in_one_line(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="no own column stag — it has age, score"):
        Stream(dataset.url, columns=["stag"])
    with pytest.raises(ConfigError, match=r"write columns=\['age'\]"):
        Stream(dataset.url, global_batch=8, columns="age")
    for version in (-1, 7, 2**70):
        with pytest.raises(
            SampleIndexError, match=rf"no version of columns/ with the number {version}; the newest is 0"
        ):
            Stream(dataset.url, global_batch=8, columns=["age"], columns_version=version)
    with pytest.raises(ConfigError, match="asked for twice"):
        Stream(dataset.url, columns=["age", "age"])


def test_positions_of_rows(dataset: Dataset) -> None:
    stream = Stream(dataset.url, global_batch=24)
    chosen = stream.plan.chosen
    assert chosen is not None
    shards = np.repeat(np.arange(len(chosen.shards)), chosen.counts)
    rows = np.concatenate([np.arange(num) for num in chosen.counts])
    assert chosen.positions(shards, rows).tolist() == list(range(120))
    assert chosen.positions(np.array([-1, 0]), np.array([0, 999])).tolist() == [-1, -1]
