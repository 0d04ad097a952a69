"""Ages by the store's clock: a machine whose own is days ahead."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from shards.dataset.vacuum import vacuum
from shards.dataset.verify import remove_orphans, verify
from shards.store import open_store
from shards.store.clock import store_time
from tests.shards.builders import small_dataset


def ahead(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + 86_400 * days)


def test_the_time_is_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time()
    ahead(monkeypatch, 3)
    assert abs(store_time(open_store(str(tmp_path)), "staging") - right) < 60
    assert list(tmp_path.iterdir()) == []


def test_a_clock_that_is_ahead_removes_nothing_of_a_job_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = small_dataset(tmp_path / "data")
    staged = tmp_path / "data/staging/job/u000000.tar"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"under way")
    versions = dataset.version() + 1
    ahead(monkeypatch, 400)
    done = vacuum(dataset)
    assert (list(done.paths), len(done.kept)) == ([], versions)
    assert list(remove_orphans(dataset, verify(dataset).orphans, older_than_seconds=86_400)) == []
    assert staged.exists()
