"""Commits that replace table files: once for each transaction, planned anew where others come between."""

from __future__ import annotations

from pathlib import Path

import pytest
from deltalake import DeltaTable

from shards.dataset import replace
from shards.dataset.dataset import Dataset
from shards.dataset.replace import Change, replace_files
from shards.dataset.table_files import add_actions
from shards.errors import StoreError
from tests.shards.builders import add_source, jpeg, small_dataset


def first_file(table: DeltaTable) -> Change:
    return Change(gone=[min(action["path"] for action in add_actions(table))], counts={"removed": 1})


def num_rows(dataset: Dataset, version: int | None = None) -> int:
    return int(dataset.query("SELECT count(*) FROM samples", version=version).column(0)[0].as_py())


def test_a_file_leaves_in_one_commit_and_older_versions_keep_it(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    before = num_rows(dataset)
    assert replace_files(dataset, "index", first_file, transaction="t", summary={"source": "alpha"}) == 3
    assert num_rows(dataset) < before == num_rows(dataset, 2)
    assert dataset.jobs()[-1] == {"job_id": "t", "version": 3, "source": "alpha", "removed": 1}
    assert replace_files(dataset, "index", first_file, transaction="t") == 3
    add_source(dataset, "delta", "MR", [jpeg(500)])
    assert dataset.version() == 4


def test_who_comes_second_plans_anew(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    plans = []

    def plan(table: DeltaTable) -> Change:
        if not plans:
            add_source(Dataset.open(dataset.url), "delta", "MR", [jpeg(500)])
        plans.append(table.version())
        return first_file(table)

    assert replace_files(dataset, "index", plan, transaction="t") == 4
    assert plans == [2, 3]


@pytest.mark.slow
def test_one_who_never_comes_first_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replace, "_PAUSE_SECONDS", 0.0)
    dataset = small_dataset(tmp_path / "d")
    numbers = iter(range(500, 600))

    def plan(table: DeltaTable) -> Change:
        add_source(dataset, f"s{next(numbers)}", "MR", [jpeg(next(numbers))])
        return first_file(table)

    with pytest.raises(StoreError, match="others commit all the time"):
        replace_files(dataset, "index", plan, transaction="t")


def test_no_table_and_no_change(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "d")
    assert replace_files(dataset, "fingerprints", first_file, transaction="t") == -1
    assert replace_files(dataset, "index", lambda _: None, transaction="t") == 2


def test_every_hundredth_commit_makes_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replace, "_CHECKPOINT_COMMITS", 4)
    dataset = small_dataset(tmp_path / "d")
    for number in range(3):
        replace_files(dataset, "index", lambda _: Change(), transaction=f"t{number}")
    assert (tmp_path / "d/index/_delta_log/00000000000000000004.checkpoint.parquet").is_file()
    assert num_rows(dataset) == 120
    assert len(dataset.jobs()) == 6
