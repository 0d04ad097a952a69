"""A lock of what is left of another."""

from __future__ import annotations

from pathlib import Path

import pytest

from shards.dataset.dataset import Dataset
from shards.dataset.removal import remove_samples
from shards.errors import ConfigError, SubsetError
from shards.subset.finding import verify
from shards.subset.lock import Lock, Selection, create
from shards.subset.relock import relock
from tests.shards.builders import add_source, jpeg


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    made = Dataset.create(str(tmp_path / "d"))
    add_source(made, "a", "CT", [jpeg(number) for number in range(20)], job_id="one")
    return made


def keys_of(dataset: Dataset, lock: Lock) -> set[str]:
    found = verify(lock, dataset)
    return set(dataset.query(f"SELECT key FROM samples WHERE {found.where}", version=found.version)["key"].to_pylist())


@pytest.mark.slow
@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(modality=("CT",)),
        Selection(where="shard_row < 12 -- rows"),
        Selection(fraction=0.5, seed=3),
    ],
)
def test_what_went_is_missing_and_nothing_new_is_in(dataset: Dataset, selection: Selection) -> None:
    old = create(dataset, selection)
    held = keys_of(dataset, old)
    gone = sorted(held)[:3]
    add_source(dataset, "b", "CT", [jpeg(number) for number in range(30, 40)], job_id="two")
    if selection.where is None:  # a predicate over places means other rows in the new shards
        remove_samples(dataset, gone, transaction="withdraw-1")
        new = relock(old, dataset)
        assert keys_of(dataset, new) == held - set(gone)
        assert relock(new, dataset).digest == new.digest
    else:
        assert keys_of(dataset, relock(old, dataset)) == held


@pytest.mark.slow
def test_nothing_left_or_another_dataset_is_an_error(dataset: Dataset, tmp_path: Path) -> None:
    old = create(dataset, Selection(source=("a",)))
    other = Dataset.create(str(tmp_path / "e"))
    add_source(other, "a", "CT", [jpeg(1)], job_id="one")
    with pytest.raises(ConfigError, match="another dataset"):
        relock(old, other)
    remove_samples(dataset, sorted(keys_of(dataset, old)), transaction="withdraw-1")
    with pytest.raises(SubsetError, match="holds 0 of the 20"):
        relock(old, dataset)
