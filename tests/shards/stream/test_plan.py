"""Plans: what an epoch is made of, and where its samples lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shards.dataset.dataset import Dataset
from shards.dataset.shard_file import shard_path, shard_tags
from shards.errors import SampleIndexError, ShardError, SubsetError
from shards.stream.plan import plan_found, plan_of
from shards.stream.rows import DENSE_END, OFFSET
from shards.subset import finding
from shards.subset.finding import find
from shards.subset.lock import Lock, LockPart, Selection, create
from tests.shards.builders import add_source, jpeg, small_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("plan") / "data")


def test_a_plan_counts_the_rows_of_each_shard(dataset: Dataset) -> None:
    _, plan = plan_of(dataset.url)
    assert plan.num_samples == 120
    assert sorted(plan.counts.tolist()) == [4, 8, 12, 16, 16, 16, 16, 16, 16]
    assert set(zip(plan.sources, plan.modalities, strict=True)) == {
        ("alpha", "CT"),
        ("beta", "US"),
        ("gamma", "Fundus"),
    }
    assert list(plan.shards) == sorted(plan.shards)


def test_rows_are_those_of_the_index_in_the_order_of_the_shard(dataset: Dataset) -> None:
    _, plan = plan_of(dataset.url)
    table = dataset.table("index")
    assert table is not None
    index = table.to_pyarrow_table().to_pylist()
    for shard, rows in zip(plan.shards, plan.source.rows(range(len(plan.shards))), strict=True):
        expected = sorted((row for row in index if row["shard"] == shard), key=lambda row: row["shard_row"])
        assert rows.keys.tolist() == [row["key"] for row in expected]
        assert rows.places[:, OFFSET].tolist() == [row["byte_offset"] for row in expected]
        assert rows.places[:, DENSE_END].min() > 0


def test_a_predicate_keeps_the_right_rows(dataset: Dataset) -> None:
    lock = create(dataset, Selection(where="shard_row % 3 = 1"))
    plan = plan_found(find(lock, dataset))
    rows = plan.source.rows(range(len(plan.shards)))
    assert [len(found.keys) for found in rows] == plan.counts.tolist()
    assert sum(len(found.keys) for found in rows) == lock.num_samples


def test_later_jobs_of_the_same_source_are_other_files_of_the_index(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    for number in range(3):
        add_source(dataset, "alpha", "CT", [jpeg(n) for n in range(10 * number, 10 * number + 10)], job_id=f"j{number}")
    _, plan = plan_of(dataset.url)
    keys = np.concatenate([rows.keys for rows in plan.source.rows(range(len(plan.shards)))])
    assert len(set(keys)) == 30


@pytest.mark.slow
def test_a_large_lock_is_checked_by_its_order(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "VERIFIED_SAMPLES", 10)
    lock = create(dataset, Selection(modality=("CT",)))
    found = find(lock, dataset)
    assert (found.same_order, found.chosen.digest) == (True, "")
    assert plan_found(found).digests.samples == lock.digest
    with pytest.raises(SubsetError, match="alpha CT: changed"):
        find(lock.model_copy(update={"order": "sha256:0", "digest": "other", "parts": _changed(lock)}), dataset)


def _changed(lock: Lock) -> tuple[LockPart, ...]:
    return tuple(part.model_copy(update={"digest": "other"}) for part in lock.parts)


def test_an_empty_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(SampleIndexError, match="holds no samples yet"):
        plan_of(Dataset.create(str(tmp_path / "data")).url)


def test_tags_are_read_off_shard_paths() -> None:
    assert shard_tags(shard_path("my-source", "X-Ray", "ab" * 32)) == ("my-source", "X-Ray")
    for wrong in ("shards/a/unknown/x.tar", "shards/a/x.tar", "x"):
        with pytest.raises(ShardError, match="no path of a shard"):
            shard_tags(wrong)
