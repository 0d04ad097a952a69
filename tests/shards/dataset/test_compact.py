"""Few large shards and files out of many small ones: the samples stay, older versions stay, a kill breaks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli import main
from shards.dataset import compact as compacting
from shards.dataset.compact import compact
from shards.dataset.dataset import Dataset
from shards.dataset.vacuum import vacuum
from shards.dataset.verify import verify
from shards.errors import ShardError
from shards.subset.finding import find
from shards.subset.lock import create
from shards.subset.selection import Selection
from tests.shards.builders import add_source, jpeg

pytestmark = pytest.mark.slow

SHARD_BYTES = 60_000


def weekly(url: Path | str, *, weeks: int = 6) -> Dataset:
    """A dataset that grew by two small shards a week, and has one source of another modality."""
    dataset = Dataset.create(str(url))
    for week in range(weeks):
        images = [jpeg(100 * week + number) for number in range(8)]
        add_source(dataset, "alpha", "CT", images, per_shard=4, job_id=f"week-{week}")
    add_source(dataset, "beta", "US", [jpeg(9000 + number) for number in range(6)], per_shard=3)
    return dataset


def samples(dataset: Dataset, version: int | None = None) -> list[str]:
    sql = "SELECT key, pixel_sha256, crc32c, byte_length, group_id, job_id, modality, source FROM samples ORDER BY key"
    return [str(row) for row in dataset.query(sql, version=version).to_pylist()]


def num_shards(dataset: Dataset) -> int:
    return len(dataset.query("SELECT DISTINCT shard FROM samples"))


def compacted_whole(dataset: Dataset, before: list[str], version: int) -> None:
    assert samples(dataset) == before == samples(dataset, version)
    report = verify(dataset, deep=True)
    assert (report.problems, report.num_samples) == ((), len(before))
    assert len(dataset.samples_table().file_uris()) == 2


def test_small_shards_and_files_are_merged(tmp_path: Path) -> None:
    dataset = weekly(tmp_path / "d")
    before, shards = samples(dataset), num_shards(dataset)
    done = compact(dataset, shard_bytes=SHARD_BYTES)
    assert (done.shards, done.files["index"]) == (14, 7)
    assert num_shards(dataset) == shards - done.shards + done.into < shards // 2
    compacted_whole(dataset, before, done.version - 1)
    assert dataset.jobs()[-1]["compacted_shards"] == 14


def test_a_compact_dataset_is_left_alone(tmp_path: Path) -> None:
    dataset = weekly(tmp_path / "d")
    version = compact(dataset, shard_bytes=SHARD_BYTES).version
    again = compact(dataset, shard_bytes=SHARD_BYTES)
    assert (again.version, again.shards, sum(again.files.values())) == (version, 0, 0)


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for name in ("a", "b"):
        compact(weekly(tmp_path / name), shard_bytes=SHARD_BYTES)
        made.append({path.name: path.read_bytes() for path in (tmp_path / name / "shards").rglob("*.tar")})
    assert made[0] == made[1]


@pytest.mark.parametrize("step", ["put_shard", "write_files", "replace_files"])
def test_what_is_cut_short_is_done_again(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = weekly(tmp_path / "d")
    before = samples(dataset)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compacting, step, killed)
        with pytest.raises(KeyboardInterrupt):
            compact(dataset, shard_bytes=SHARD_BYTES)
    assert samples(dataset) == before
    done = compact(dataset, shard_bytes=SHARD_BYTES)
    compacted_whole(dataset, before, done.version - 1)


def test_a_damaged_shard_is_not_copied(tmp_path: Path) -> None:
    dataset = weekly(tmp_path / "d")
    row = dataset.query("SELECT shard, byte_offset FROM samples ORDER BY shard LIMIT 1").to_pylist()[0]
    file = tmp_path / "d" / row["shard"]
    data = bytearray(file.read_bytes())
    data[row["byte_offset"] + 50] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ShardError, match="as the index says"):
        compact(dataset, shard_bytes=SHARD_BYTES)
    assert dataset.version() == 6


def test_a_lock_goes_on_and_is_told_the_packing_once_its_version_is_gone(tmp_path: Path) -> None:
    dataset = weekly(tmp_path / "d")
    lock = create(dataset, Selection(modality=("CT",)))
    compact(dataset, shard_bytes=SHARD_BYTES)
    found = find(lock)
    assert (found.version, found.same_order) == (6, True)
    vacuum(dataset, keep_days=0, orphan_hours=0, locked=[6])
    assert find(lock).same_order is True
    vacuum(dataset, keep_days=0, orphan_hours=0)
    moved = find(lock)
    assert (moved.version, moved.same_order) == (7, False)
    assert "found in version 7" in " ".join(moved.notes)


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weekly(tmp_path / "d")
    assert main(["compact", str(tmp_path / "d")]) == 0
    assert "14 small shards became 2, 7 table files were merged" in " ".join(capsys.readouterr().out.split())
    assert main(["compact", str(tmp_path / "d")]) == 0
    assert "version 7 is compact" in capsys.readouterr().out
    assert main(["compact", str(tmp_path / "d"), "--shard-mb", "0"]) == 2
    assert main(["compact", str(tmp_path / "nowhere")]) == 1


@pytest.mark.slow
@pytest.mark.process
def test_compact_and_vacuum_on_object_storage(bucket: str) -> None:
    dataset = weekly(f"{bucket}/d", weeks=3)
    before = samples(dataset)
    done = compact(dataset, shard_bytes=SHARD_BYTES)
    compacted_whole(dataset, before, done.version - 1)
    lock = create(dataset, Selection(), version=1)
    gone = vacuum(dataset, keep_days=0, orphan_hours=0, locked=[1])
    assert gone.paths
    assert find(lock).version == 1
    assert samples(dataset) == before
    assert not verify(dataset, deep=True).problems
    assert not vacuum(dataset, keep_days=0, orphan_hours=0, locked=[1]).paths
