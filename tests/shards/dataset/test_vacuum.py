"""What no kept version needs goes; pinned versions, young objects and jobs under way stay."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from infra.cli import main
from shards.dataset.dataset import Dataset
from shards.dataset.pins import drop_pins, pins_of, record_pin
from shards.dataset.removal import remove_samples
from shards.dataset.vacuum import Vacuumed, vacuum
from shards.dataset.verify import verify
from shards.errors import BiovfmError, SampleIndexError
from tests.shards.builders import add_source, jpeg, small_dataset

pytestmark = pytest.mark.slow


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Versions 0 to 2 grow, 3 and 4 lose samples."""
    made = small_dataset(tmp_path / "d")
    for number in range(2):
        keys = made.query("SELECT key FROM samples WHERE source = 'alpha' ORDER BY key LIMIT 10")["key"].to_pylist()
        remove_samples(made, keys, transaction=f"t{number}")
    return made


def now(dataset: Dataset, **more: object) -> Vacuumed:
    return vacuum(dataset, **{"keep_days": 0.0, "orphan_hours": 0.0, **more})  # type: ignore[arg-type]


def readable(dataset: Dataset, version: int) -> bool:
    try:
        rows = dataset.query("SELECT DISTINCT shard FROM samples", version=version)
        return all(dataset.store.stat(shard).size for shard in rows["shard"].to_pylist())
    except BiovfmError:
        return False


def test_the_newest_version_is_whole_afterwards(dataset: Dataset) -> None:
    done = now(dataset)
    assert (done.kept, done.pinned, done.dropped) == ([4], [], [0, 1, 2, 3])
    report = verify(dataset, deep=True)
    assert (report.problems, report.orphans, report.num_samples) == ((), (), 100)
    assert not any(readable(dataset, version) for version in range(4))
    assert not now(dataset).paths


def test_a_dry_run_removes_nothing(dataset: Dataset) -> None:
    planned = now(dataset, dry_run=True)
    assert planned.paths
    assert all(readable(dataset, version) for version in range(5))
    assert now(dataset).paths == planned.paths


def test_pinned_versions_stay(dataset: Dataset) -> None:
    assert record_pin(dataset, 2, digest="md5sum128:" + "ab" * 16)
    assert record_pin(dataset, 2, digest="md5sum128:" + "ab" * 16)
    done = now(dataset, locked=[3])
    assert (done.kept, done.pinned) == ([2, 3, 4], [2, 3])
    assert readable(dataset, 2)
    assert readable(dataset, 3)
    assert [pin.version for pin in pins_of(dataset)] == [2]
    assert len(drop_pins(dataset, [2])) == 1
    assert now(dataset).kept == [4]


def test_versions_of_the_last_days_stay(dataset: Dataset) -> None:
    assert not vacuum(dataset, orphan_hours=0).paths
    log = sorted(Path(dataset.url, "index/_delta_log").glob("*.json"))
    for file, days in zip(log, (50, 40, 20, 10, 0), strict=True):
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        lines[0]["commitInfo"]["timestamp"] = int(1000 * (time.time() - 86_400 * days))
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert vacuum(dataset, keep_days=30, orphan_hours=0, dry_run=True).kept == [1, 2, 3, 4]
    assert vacuum(dataset, keep_days=15, orphan_hours=0, dry_run=True).kept == [2, 3, 4]


def test_what_a_job_under_way_has_staged_and_named_stays(dataset: Dataset) -> None:
    store = dataset.store
    new, stray = "shards/alpha/ct/new.tar", "shards/alpha/ct/stray.tar"
    for path in (new, stray, "staging/live/u000000.json", f"staging/live/promoted/{new}", "staging/dead/u000000.json"):
        store.put_if_absent(path, b"x")
        if path != f"staging/live/promoted/{new}":
            os.utime(Path(dataset.url, path), (time.time() - 1e6,) * 2)
    gone = vacuum(dataset, keep_days=30, orphan_hours=24).paths
    assert set(gone) == {stray, "staging/dead/u000000.json"}


def test_a_version_that_an_earlier_vacuum_took_is_not_kept_again(dataset: Dataset) -> None:
    now(dataset)
    assert now(dataset, locked=[2, 99, -1]).kept == [4]


def test_a_damaged_newest_version_stops_it(dataset: Dataset) -> None:
    next(Path(dataset.url, "index").rglob("part-t1-*.parquet")).unlink()
    with pytest.raises(SampleIndexError, match="which its newest version needs"):
        now(dataset)


def test_an_empty_dataset_has_nothing_to_lose(tmp_path: Path) -> None:
    assert not now(Dataset.create(str(tmp_path / "d"))).paths


def test_a_dataset_that_may_not_be_written_to_is_pinned_nowhere(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    lock = tmp_path / "all.lock.yaml"
    with monkeypatch.context() as patch:
        patch.setattr("shards.store.local._fill", refuse)
        assert not record_pin(dataset, 1, digest="md5sum128:" + "0" * 32)
    assert main(["subset", "create", dataset.url, "--version", "2", "--out", str(lock)]) == 0
    drop_pins(dataset, [2])
    capsys.readouterr()
    assert main(["vacuum", dataset.url, "--lock", str(lock), "--keep-days", "0", "--orphan-hours", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == [2, 4]


def test_the_command_keeps_what_a_new_lock_pins_and_forgets_it_when_told(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "all.lock.yaml"
    assert main(["subset", "create", dataset.url, "--version", "2", "--out", str(lock)]) == 0
    words = ["vacuum", dataset.url, "--keep-days", "0", "--orphan-hours", "0"]
    assert main([*words, "--dry-run"]) == 0
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "kept: 2 versions, of which locks pin version 2" in said
    assert "would go" in said
    assert main(["subset", "verify", str(lock)]) == 0
    assert main([*words, "--unpin", "2"]) == 0
    assert main(["subset", "verify", str(lock)]) == 1


def test_an_append_only_dataset_loses_no_version(tmp_path: Path) -> None:
    made = small_dataset(tmp_path / "d")
    add_source(made, "delta", "MR", [jpeg(800)])
    done = now(made)
    assert (done.paths, done.dropped) == ([], [])
