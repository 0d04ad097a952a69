"""The staging folder: what was staged is compared with what its writer made of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.job.run import run_job
from ingest.settings import IngestSettings
from ingest.staging.folder import Staging, sweep_jobs, unit_file, unit_tar
from ingest.staging.report import UnitReport
from shards.dataset.dataset import Dataset
from shards.errors import NotFoundError, StoreError
from shards.store import MemoryStore, open_store
from tests.ingest.material import encoded, photo, public_spec, shard_bytes, tables, write_folder

REPORT = UnitReport(index=3, files=2, items=2, kept=1, rejected={"blank": 1}, shards={"a.tar": (1, "00")})


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """A dataset whose job was stopped when all units were mapped."""
    raw = write_folder(tmp_path / "raw", {f"{n}.png": encoded(photo(n)) for n in range(6)})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=True)
    assert raw.exists()
    return tmp_path / "d" / "staging"


def run(folder: Path, *, stop: bool = False, dataset: str = "d") -> tuple[int, int]:
    def watch(now: object) -> None:
        if stop and getattr(now, "stage", "") == "resolve":
            raise KeyboardInterrupt

    settings = IngestSettings(unit_files=2)
    raw, url = str(folder / "raw"), str(folder / dataset)
    report = run_job(public_spec(), raw, url, workers=0, settings=settings, progress=watch)
    return report.kept, report.resumed_units


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def only(folder: Path, pattern: str) -> Path:
    return min(folder.rglob(pattern))


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern", ["u000000-*.tar", "u000001.index.parquet", "u000002.fingerprints.parquet", "u000001.raw_files.parquet"]
)
@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_a_unit_whose_staged_files_are_damaged_is_mapped_again(pattern: str, harm: str, staged: Path) -> None:
    path = only(staged, pattern)
    if harm == "flip":
        flip(path)
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.unlink()
    assert run(staged.parent.parent)[0] == 6
    run(staged.parent.parent, dataset="alone")
    assert shard_bytes(staged.parent) == shard_bytes(staged.parent.parent / "alone")
    assert len(tables(staged.parent)["index"]) == 6


@pytest.mark.slow
def test_a_damaged_report_is_no_report(staged: Path) -> None:
    flip(only(staged, "u000001.json"))
    assert run(staged.parent.parent) == (6, 2)


@pytest.mark.slow
def test_the_staged_tables_have_the_names_of_the_committed_ones(staged: Path) -> None:
    names = {path.name.split(".")[1] for path in staged.rglob("*.parquet")}
    run(staged.parent.parent)
    committed = {path.parent.name for path in staged.parent.glob("*/_delta_log")}
    assert names - {"neighbours"} == committed == {"index", "rejects", "fingerprints", "raw_files"}


def test_a_store_that_returns_other_bytes_is_an_error_after_some_reads() -> None:
    store = MemoryStore("memory://t")
    staging = Staging(store, "job")
    unit = UnitReport(index=0, files=0, items=0, kept=0, rejected={}, shards={}, tables={"index": "00"})
    store.put_if_absent(f"staging/job/{unit_file(0, 'index')}", b"anything")
    with pytest.raises(StoreError, match="does not hold what was written"):
        staging.table(unit, "index")
    assert not staging.is_sound(unit)


def test_reports_come_back_as_they_were_put(tmp_path: Path) -> None:
    staging = Staging(open_store(str(tmp_path)), "job")
    assert staging.is_empty()
    staging.publish([], REPORT)
    assert staging.reports() == {3: REPORT}
    staging.forget([3])
    assert not staging.reports()


def test_a_result_is_made_once_and_again_where_it_is_damaged(tmp_path: Path) -> None:
    staging = Staging(open_store(str(tmp_path)), "job")
    assert staging.result("headers", 7, lambda: [[1, "a"]]) == [[1, "a"]]
    assert staging.result("headers", 7, lambda: [["other"]]) == [[1, "a"]]
    assert staging.results("headers") == {7: [[1, "a"]]}
    flip(only(tmp_path, "u000007.json"))
    assert staging.results("headers") == {}
    assert staging.result("headers", 7, lambda: [["again"]]) == [["again"]]


def test_a_moved_tar_is_found_under_its_final_name_and_swept_where_no_row_names_it(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    staging = Staging(dataset.store, "job")
    tar = unit_tar(0, "ct", 0)
    with staging.workplace() as folder:
        (folder / tar).write_bytes(b"bytes")
        staging.publish([folder / tar], UnitReport(index=0, files=0, items=0, kept=0, rejected={}, shards={}))
    staging.move_tar(tar, "shards/s/ct/0.tar")
    staging.move_tar(tar, "shards/s/ct/0.tar")
    with staging.open_tar(tar) as stream:
        assert stream.read() == b"bytes"
    with pytest.raises(NotFoundError):
        staging.open_tar(unit_tar(9, "ct", 0))
    sweep_jobs(dataset)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["dataset.json"]
    assert json.loads((tmp_path / "dataset.json").read_text())


def test_a_shard_of_a_unit_that_was_forgotten_is_not_taken_for_its_new_tar(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path))
    staging = Staging(dataset.store, "job")
    tar = unit_tar(0, "ct", 0)
    for content in (b"before", b"after"):
        report = UnitReport(index=0, files=0, items=0, kept=0, rejected={}, shards={tar: (1, content.hex())})
        with staging.workplace() as folder:
            (folder / tar).write_bytes(content)
            staging.publish([folder / tar], report)
        assert staging.holds(report)
        staging.move_tar(tar, f"shards/s/ct/{content.decode()}.tar")
        with staging.open_tar(tar) as stream:
            assert stream.read() == content
        staging.forget([0])
        assert not staging.holds(report)
        with pytest.raises(NotFoundError):
            staging.open_tar(tar)
    sweep_jobs(dataset)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["dataset.json"]
