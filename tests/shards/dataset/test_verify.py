"""`verify` finds what was broken, names it, and changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from infra.cli import main
from ingest.job.concede import concede_duplicates
from shards.dataset.dataset import Dataset
from shards.dataset.verify import Report, remove_orphans, verify
from shards.errors import SampleIndexError
from shards.schema import rejects_schema
from shards.store import open_store
from shards.stream.plan import plan_of
from tests.shards.builders import add_source, jpeg, small_dataset

DAY = 86_400.0


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return small_dataset(tmp_path / "data")


def shards_of(dataset: Dataset) -> list[Path]:
    return sorted(Path(dataset.url).glob("shards/**/*.tar"))


def kinds(report: Report) -> list[str]:
    return [problem.kind for problem in report.problems]


def snapshot(folder: str) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_dataset_has_no_problems(dataset: Dataset, deep: bool) -> None:
    steps: list[tuple[int, int]] = []
    before = snapshot(dataset.url)
    report = verify(dataset, deep=deep, progress=lambda done, total: steps.append((done, total)))
    assert (report.problems, report.orphans) == ((), ())
    assert (report.num_samples, report.num_shards, report.version) == (120, 9, dataset.version())
    assert report.num_bytes == sum(file.stat().st_size for file in shards_of(dataset))
    assert steps == ([(number, 9) for number in range(1, 10)] if deep else [])
    assert snapshot(dataset.url) == before


def test_an_empty_dataset_is_sound(tmp_path: Path) -> None:
    assert verify(Dataset.create(str(tmp_path / "new")), deep=True).problems == ()


def delete(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[600] ^= 1
    file.write_bytes(data)


def swap_members(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data.replace(b".jpg\0", b".jpq\0", 1))


def break_json(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data.replace(b'{"licence"', b'["licence"', 1))


def cut_the_end(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "quick", "deep"),
    [
        (delete, ["missing"], ["missing"]),
        (truncate, ["size"], ["size"]),
        (flip, [], ["hash", "checksum"]),
        (swap_members, [], ["structure"]),
        (break_json, [], ["hash", "structure"]),
        (cut_the_end, [], ["hash", "structure"]),
    ],
)
def test_damage_is_found_and_named(
    dataset: Dataset, damage: Callable[[Path], None], quick: list[str], deep: list[str]
) -> None:
    file = shards_of(dataset)[3]
    damage(file)
    for is_deep, expected in ((False, quick), (True, deep)):
        report = verify(dataset, deep=is_deep)
        assert set(expected) <= set(kinds(report))
        assert bool(report.problems) == bool(expected)
        assert {problem.path for problem in report.problems} <= {file.relative_to(dataset.url).as_posix()}


def test_a_missing_table_file_is_named(dataset: Dataset) -> None:
    file = next(Path(dataset.url).glob("index/**/*.parquet"))
    file.unlink()
    report = verify(dataset)
    assert kinds(report) == ["missing"]
    assert report.problems[0].path == file.relative_to(dataset.url).as_posix()
    assert report.orphans == ()


@pytest.mark.slow
def test_rows_that_cannot_be_are_named(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    add_source(dataset, "alpha", "CT", [jpeg(1), jpeg(2), jpeg(1)])
    assert "duplicate" in kinds(verify(dataset))
    table = dataset.table("index")
    assert table is not None
    rows = table.to_pyarrow_table().filter([True, False, True])
    other = Dataset.create(str(tmp_path / "other"))
    for file in shards_of(dataset):
        other.store.put_if_absent(file.relative_to(dataset.url).as_posix(), file)
    other.commit(job_id="j", rows=rows, rejects=rejects_schema().empty_table())
    assert "rows" in kinds(verify(other))
    assert "structure" in kinds(verify(other, deep=True))


@pytest.mark.slow
def test_orphans_are_listed_and_only_old_ones_go_when_told(dataset: Dataset) -> None:
    for path in ("shards/alpha/ct/0123456789abcdef0123.tar", "staging/job/unit.tar", "shards/.partial-1-2"):
        dataset.store.put_if_absent(path, b"x" * 100)
    report = verify(dataset)
    assert report.problems == ()
    assert len(report.orphans) == 3
    assert {orphan.size for orphan in report.orphans} == {100}
    assert list(remove_orphans(dataset, report.orphans, older_than_seconds=DAY)) == []
    old = Path(dataset.url) / "staging/job/unit.tar"
    os.utime(old, (1, 1))
    removed = remove_orphans(dataset, verify(dataset).orphans, older_than_seconds=DAY)
    assert [orphan.path for orphan in removed] == ["staging/job/unit.tar"]
    assert len(verify(dataset).orphans) == 2


def test_orphans_stay_where_older_versions_may_need_them(dataset: Dataset) -> None:
    table = dataset.table("index")
    assert table is not None
    table.delete("source = 'alpha'")
    report = verify(dataset)
    assert len(report.orphans) == 4
    with pytest.raises(SampleIndexError, match="older versions"):
        remove_orphans(dataset, report.orphans, older_than_seconds=-1)


@pytest.mark.slow
def test_the_command(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", dataset.url, "--deep"]) == 0
    assert "sound" in capsys.readouterr().out
    shards_of(dataset)[0].unlink()
    assert main(["verify", dataset.url, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["problems"][0]["kind"]) == (False, "missing")


@pytest.mark.s3
def test_on_object_storage(bucket: str) -> None:
    dataset = Dataset.create(f"{bucket}/data")
    add_source(dataset, "alpha", "CT", [jpeg(number) for number in range(6)], per_shard=3)
    assert verify(dataset, deep=True).problems == ()
    lost = next(iter(dataset.store.list("shards/"))).path
    open_store(dataset.url).delete([lost])
    assert [(problem.kind, problem.path) for problem in verify(dataset).problems] == [("missing", lost)]


def table_file(dataset: Dataset, name: str = "index") -> Path:
    return max((Path(dataset.url) / name).rglob("*.parquet"), key=lambda file: file.stat().st_size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index", "rejects"])
def test_every_flipped_bit_of_a_table_file_is_found(dataset: Dataset, name: str) -> None:
    row = dict.fromkeys(rejects_schema().names, "x")
    dataset.reject("more", pa.Table.from_pylist([row], schema=rejects_schema()))
    file = table_file(dataset, name)
    good = file.read_bytes()
    for at in range(5, len(good) - 1, len(good) // 12):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        file.write_bytes(bad)
        found = verify(dataset, deep=True).problems
        assert [problem.kind for problem in found] == ["hash"], at
        assert found[0].path.startswith(f"{name}/")
    file.write_bytes(good)
    assert verify(dataset, deep=True).problems == ()


@pytest.mark.slow
def test_a_log_that_says_other_things_than_the_file_is_found(dataset: Dataset) -> None:
    log = Path(dataset.url) / "index/_delta_log/00000000000000000000.json"
    good = log.read_text()
    for old, new in (('\\"numRecords\\": 60', '\\"numRecords\\": 61'), ('"modality":"CT"', '"modality":"MR"')):
        assert old in good
        log.write_text(good.replace(old, new))
        assert "table" in kinds(verify(dataset, deep=True))
    log.write_text(good)
    assert verify(dataset, deep=True).problems == ()


@pytest.mark.slow
def test_a_table_without_hashes_is_read_with_a_word(dataset: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    add_source(dataset, "alpha", "CT", [jpeg(500)], job_id="again")
    assert verify(dataset, deep=True).num_unhashed_files == 0
    dataset.samples_table().optimize.compact()
    report = verify(dataset, deep=True)
    assert report.num_unhashed_files > 0
    assert report.problems == ()
    main(["verify", dataset.url, "--deep"])
    assert "no hash was kept" in capsys.readouterr().out


@pytest.mark.slow
def test_images_that_a_job_gave_up_may_stay_in_its_shard(tmp_path: Path) -> None:
    pictures = [jpeg(number) for number in range(6)]
    dataset = Dataset.create(str(tmp_path / "data"))
    add_source(dataset, "first", "CT", pictures[:4], job_id="first")
    add_source(dataset, "later", "CT", [pictures[4], *pictures[1:3], pictures[5]], job_id="later")
    assert concede_duplicates(dataset, "later") == 2
    for deep in (False, True):
        assert verify(dataset, deep=deep).problems == ()


@pytest.mark.slow
def test_images_that_nobody_gave_up_may_not_lack_a_row(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    add_source(dataset, "first", "CT", [jpeg(number) for number in range(6)])
    dataset.samples_table().delete("shard_row = 3")
    assert "rows" in kinds(verify(dataset))
    assert "structure" in kinds(verify(dataset, deep=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "value", "kind"),
    [
        ("licence", "CC-BY", "sidecar"),
        ("raw_path", "other.jpg", "sidecar"),
        ("width", 81, "pixels"),
        ("channels", 1, "pixels"),
    ],
)
def test_rows_that_say_other_things_than_the_shard_are_found(
    tmp_path: Path, column: str, value: object, kind: str
) -> None:
    dataset = Dataset.create(str(tmp_path / "data"))
    add_source(dataset, "s", "CT", [jpeg(1)], row={column: value})
    assert kind in kinds(verify(dataset, deep=True))


@pytest.mark.slow
@pytest.mark.parametrize("path", ["../../other/x.parquet", "/etc/x.parquet", "file:///etc/x.parquet", "a/../../../x"])
def test_a_log_that_names_files_elsewhere_is_refused_by_every_reader(tmp_path: Path, path: str) -> None:
    dataset = small_dataset(tmp_path / "data")
    log = Path(dataset.url) / "index/_delta_log/00000000000000000000.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "add" in line:
            line["add"]["path"] = path
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SampleIndexError, match="outside the dataset"):
        dataset.query("SELECT * FROM samples")
    with pytest.raises(SampleIndexError, match="outside the dataset"):
        plan_of(dataset.url)
    assert "table" in kinds(verify(dataset))


@pytest.mark.slow
def test_a_table_that_cannot_be_read_is_one_line(dataset: Dataset) -> None:
    file = table_file(dataset)
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(SampleIndexError, match="samples") as caught:
        dataset.query("SELECT * FROM samples")
    assert "\n" not in str(caught.value)
    assert "table" in kinds(verify(dataset))
    assert "hash" in kinds(verify(dataset, deep=True))
