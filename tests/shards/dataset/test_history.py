"""The versions of a dataset: who made them, when, and how large it was."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from shards.dataset.dataset import Dataset
from shards.dataset.history import history, told
from shards.dataset.removal import remove_samples
from tests.shards.builders import small_dataset


def test_each_job_is_a_version_with_its_size(tmp_path: Path) -> None:
    versions = history(small_dataset(tmp_path / "data"))
    assert [(one.version, one.source, one.num_samples) for one in versions] == [
        (0, "alpha", 60),
        (1, "beta", 100),
        (2, "gamma", 120),
    ]
    sizes = [one.index_bytes or 0 for one in versions]
    assert sizes == sorted(sizes)
    assert sizes[0] > 0
    assert all(datetime.fromisoformat(one.committed).tzinfo for one in versions)


@pytest.mark.slow
def test_what_a_job_did_is_told_in_words(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    keys = dataset.query("SELECT key FROM samples LIMIT 3")["key"].to_pylist()
    remove_samples(dataset, keys, transaction="t", summary={"source": "alpha", "changed": 2, "pruned": 1_000})
    dataset.samples_table().delete(f"key = '{dataset.query('SELECT min(key) FROM samples')[0][0].as_py()}'")
    assert [one.what for one in history(dataset)][2:] == [
        "20 samples added",
        "2 files changed, 1,000 vanished files pruned, 3 samples removed",
        "rows that another job holds were given up",
    ]
    assert told({"job_id": "x", "source": "withdraw", "removed": 4, "kept": 0}, "DELETE") == "4 samples withdrawn"
    assert told({"job_id": "x", "version": 3}, "WRITE") == "nothing new"


def test_an_empty_dataset_has_no_history(tmp_path: Path) -> None:
    assert history(Dataset.create(str(tmp_path / "data"))) == []
