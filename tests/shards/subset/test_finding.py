"""A lock finds its samples wherever they lie, and says what differs where it does not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from shards.dataset.dataset import Dataset
from shards.errors import SampleIndexError, SubsetError
from shards.subset import Lock, Selection, create, verify
from shards.subset.finding import find
from shards.subset.keys import check_keys, keys_name, keys_of, write_keys
from shards.subset.lock import sorted_digest
from tests.shards.builders import add_source, jpeg, small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("finding") / "data")


def packed(folder: Path, numbers: list[int], *, per_shard: int) -> Dataset:
    dataset = Dataset.create(str(folder))
    add_source(dataset, "alpha", "CT", [jpeg(number) for number in numbers], per_shard=per_shard)
    return dataset


def test_same_samples_in_the_same_order(dataset: Dataset) -> None:
    found = verify(create(dataset, Selection(modality=("CT", "US"), fraction=0.5)), dataset)
    assert (found.same_order, found.notes) == (True, ())


def test_another_packing_of_the_same_samples_is_told_apart(tmp_path: Path) -> None:
    one = packed(tmp_path / "one", list(range(20)), per_shard=5)
    two = packed(tmp_path / "two", list(range(20)), per_shard=8)
    lock = create(one, Selection())
    found = verify(lock, two)
    assert found.same_order is False
    assert found.chosen.digest == lock.digest


@pytest.mark.slow
def test_the_version_is_looked_for_by_the_digests(tmp_path: Path) -> None:
    grown = packed(tmp_path / "grown", list(range(20)), per_shard=5)
    lock = create(grown, Selection(where="width > 0"))
    for number in range(3):
        add_source(grown, f"later{number}", "CT", [jpeg(100 + number)])
    elsewhere = Dataset.create(str(tmp_path / "elsewhere"))
    add_source(elsewhere, "other", "US", [jpeg(300)], job_id="first")
    with pytest.raises(SubsetError, match=r"missing"):
        find(lock, elsewhere)
    found = find(lock.model_copy(update={"index_version": 3}), grown)
    assert (found.version, found.same_order) == (0, True)
    assert "found in version 0" in " ".join(found.notes)


def test_a_copy_that_holds_the_subset_alone_is_found_whatever_the_predicate(tmp_path: Path) -> None:
    mixed = packed(tmp_path / "mixed", list(range(20)), per_shard=5)
    lock = create(mixed, Selection(where="shard_row > (SELECT avg(shard_row) FROM samples)"))
    kept = [row["raw_path"] for row in rows_of(mixed) if row["shard_row"] > 2]
    copy = packed(tmp_path / "copy", [int(str(name).split(".")[0]) for name in kept], per_shard=5)
    assert find(lock, copy).same_order is False


def rows_of(dataset: Dataset) -> list[dict[str, object]]:
    table = dataset.table("index")
    assert table is not None
    rows: list[dict[str, object]] = table.to_pyarrow_table().to_pylist()
    return rows


def test_what_is_missing_is_counted_per_source(tmp_path: Path) -> None:
    one = small_dataset(tmp_path / "one")
    lock = create(one, Selection())
    two = Dataset.create(str(tmp_path / "two"))
    add_source(two, "alpha", "CT", [jpeg(n) for n in range(57)])
    add_source(two, "beta", "US", [jpeg(n) for n in range(61, 101)])
    with pytest.raises(SubsetError, match=r"3 missing \(57 of 60\)") as caught:
        verify(lock, two)
    assert "beta US: changed (40 samples, but not the same)" in str(caught.value)
    assert "gamma Fundus: 20 missing (0 of 20)" in str(caught.value)


@pytest.mark.slow
def test_with_keys_each_missing_sample_has_a_name(tmp_path: Path) -> None:
    one = small_dataset(tmp_path / "one")
    path = tmp_path / "ct.lock.yaml"
    lock = create(one, Selection()).model_copy(update={"keys": keys_name(path)})
    lock.write(path)
    write_keys(lock, one, tmp_path / lock.keys)
    keys = keys_of(Lock.read(path), path)
    assert keys is not None
    check_keys(lock, keys)
    two = Dataset.create(str(tmp_path / "two"))
    add_source(two, "alpha", "CT", [jpeg(n) for n in range(57)])
    with pytest.raises(SubsetError, match="alpha CT: 3 missing of 60; beta US: 40 missing of 40"):
        verify(lock, two, keys=keys)
    from shards.subset.keys import differing_keys

    gone = differing_keys(two, two.version(), keys)
    assert len(gone) == 63
    assert {row["what"] for row in gone} == {"missing"}


@pytest.mark.slow
def test_the_keys_pick_samples_that_no_predicate_can(tmp_path: Path) -> None:
    one = packed(tmp_path / "one", list(range(20)), per_shard=5)
    lock = create(one, Selection(where="shard_row = 0"))
    write_keys(lock, one, tmp_path / "keys.parquet")
    two = packed(tmp_path / "two", list(range(25)), per_shard=25)
    with pytest.raises(SubsetError):
        find(lock, two)
    found = find(lock, two, keys=tmp_path / "keys.parquet")
    assert (found.chosen.num_samples, found.same_order) == (4, False)


def test_a_list_of_other_samples_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    write_keys(create(dataset, Selection(modality=("CT",))), dataset, tmp_path / "keys.parquet")
    with pytest.raises(SubsetError, match="lists other samples"):
        check_keys(create(dataset, Selection()), tmp_path / "keys.parquet")


@pytest.mark.slow
def test_a_lock_of_the_earlier_format_holds_and_says_what_it_does_not_pin(dataset: Dataset) -> None:
    lock = create(dataset, Selection(modality=("CT",)))
    digest = sorted_digest(dataset, lock.index_version, lock.predicate())
    old = lock.model_copy(update={"format": 1, "digest": digest, "order": "", "parts": ()})
    found = verify(old, dataset)
    assert found.same_order is None
    assert "does not pin the order" in " ".join(found.notes)
    with pytest.raises(SubsetError, match="changed under the lock"):
        verify(old.model_copy(update={"digest": "sha256:0"}), dataset)


@pytest.mark.slow
def test_a_moved_dataset_is_found_relative_to_its_lock_or_where_one_says(tmp_path: Path) -> None:
    small_dataset(tmp_path / "project" / "data")
    lock = create(Dataset.open(str(tmp_path / "project" / "data")), Selection(modality=("US",)))
    lock.write(tmp_path / "project" / "us.lock.yaml", relative=True)
    assert "dataset: data\n" in (tmp_path / "project" / "us.lock.yaml").read_text()
    shutil.move(tmp_path / "project", tmp_path / "moved")
    moved = Lock.read(tmp_path / "moved" / "us.lock.yaml")
    assert verify(moved).same_order is True
    with pytest.raises(SampleIndexError, match=re.escape("give `--dataset URL`")):
        verify(lock)
    assert verify(lock, str(tmp_path / "moved" / "data")).same_order is True
