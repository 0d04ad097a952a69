"""Attempts of a job: pending raw files, repeated commands, rejects that are tried again, sources that grow."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.job.known import Attempts
from ingest.job.run import JobReport, run_job
from ingest.raw.items import RawFile, RejectError
from ingest.readers import images
from ingest.settings import IngestSettings
from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.errors import ConfigError, StoreError
from tests.ingest.material import encoded, ingest, photo, public_spec, shard_bytes, tables, write_folder

Read = Callable[[RawFile, Any], Any]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    files = {f"{n}.png": encoded(photo(n)) for n in range(6)} | {"tiny.png": encoded(photo(9, height=12, width=12))}
    return write_folder(tmp_path / "raw", files | {"notes.txt": b"hello"})


def failing(monkeypatch: pytest.MonkeyPatch, names: set[str], error: Exception) -> None:
    """Let the reader of images fail for some files."""
    read = images.read

    def broken(raw: RawFile, options: Any) -> Any:
        if raw.name in names:
            raise error
        return read(raw, options)

    monkeypatch.setattr(images, "read", broken)


def balance(report: JobReport) -> None:
    assert report.files == report.known + report.read + sum(report.ignored.values()) + report.pending
    assert report.items == report.kept + report.rejected == report.kept + sum(report.reasons.values())


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ETIMEDOUT])
def test_files_that_cannot_be_read_now_come_with_a_later_run(
    code: int, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        failing(broken, {"1.png", "4.png"}, OSError(code, "no"))
        first = ingest(raw, tmp_path / "d")
        assert (first.kept, first.rejected, first.pending, first.read, first.files) == (4, 1, 2, 5, 8)
        balance(first)
        again = ingest(raw, tmp_path / "d")
        assert (again.kept, again.pending, again.version) == (4, 2, first.version)
    last = ingest(raw, tmp_path / "d")
    assert (last.kept, last.rejected, last.pending, last.repeated) == (6, 1, 0, False)
    balance(last)
    assert ingest(raw, tmp_path / "d").repeated
    assert {row["raw_path"] for row in tables(tmp_path / "d")["index"]} == {f"{n}.png" for n in range(6)}
    assert not verify(Dataset.open(str(tmp_path / "d")), deep=True).problems


def ending(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """Let a commit end right behind what it writes to one table."""
    append = Dataset._append

    def ends(self: Dataset, table: str, *arguments: Any) -> int:
        version = append(self, table, *arguments)
        if table == name:
            raise error
        return version

    monkeypatch.setattr(Dataset, "_append", ends)


def stop(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("step", ["map._damaged", "settle.resolve", "run.commit"])
def test_what_a_stopped_run_could_not_read_is_read_by_the_next(
    step: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the staged shards have their final names already."""
    settings: dict[str, Any] = {"unit_files": 3, "shard_bytes": 1}
    with monkeypatch.context() as broken:
        failing(broken, {"1.png"}, OSError(errno.EIO, "no"))
        broken.setattr(f"ingest.job.{step}", stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(raw, tmp_path / "d", **settings)
    report = ingest(raw, tmp_path / "d", **settings)
    assert (report.kept, report.pending, report.resumed_units) == (6, 0, 2)
    balance(report)
    assert not verify(Dataset.open(str(tmp_path / "d")), deep=True).problems
    ingest(raw, tmp_path / "alone", **settings)
    assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fingerprints", "raw_files", "rejects"])
def test_a_commit_that_has_begun_ends_with_what_it_began_with(
    name: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        failing(broken, {"1.png", "tiny.png"}, OSError(errno.EIO, "no"))
        ending(broken, name, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            ingest(raw, tmp_path / "d", unit_files=3)
    dataset = Dataset.open(str(tmp_path / "d"))
    second = ingest(raw, tmp_path / "d", unit_files=3)
    assert (second.kept, second.rejected, second.pending, second.resumed_units) == (5, 0, 2, 3)
    assert states(dataset) == {"pending": 2, "read": 5}
    assert keys(dataset, "samples") == keys(dataset, "fingerprints")
    last = ingest(raw, tmp_path / "d", unit_files=3)
    assert (last.kept, last.rejected, last.pending) == (6, 1, 0)
    balance(last)
    assert keys(dataset, "samples") == keys(dataset, "fingerprints")
    assert not verify(dataset, deep=True).problems


def states(dataset: Dataset) -> dict[str, int]:
    rows = dataset.query("SELECT state, count(*) AS n FROM raw_files GROUP BY 1").to_pylist()
    return {row["state"]: row["n"] for row in rows}


def keys(dataset: Dataset, table: str) -> list[str]:
    return [str(row["key"]) for row in dataset.query(f"SELECT key FROM {table} ORDER BY key").to_pylist()]


@pytest.mark.slow
def test_a_run_whose_pending_files_another_one_reads_commits_nothing(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = images.read

    def start_another(now: Any) -> None:
        if now.stage == "commit":
            with monkeypatch.context() as other:
                other.setattr(images, "read", read)
                other.setattr("ingest.job.run.commit", stop)
                with pytest.raises(KeyboardInterrupt):
                    ingest(raw, tmp_path / "d")

    with monkeypatch.context() as broken:
        failing(broken, {"1.png"}, OSError(errno.EIO, "no"))
        with pytest.raises(StoreError, match="no longer what this run has read"):
            run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, progress=start_another)
    assert Dataset.open(str(tmp_path / "d")).table("fingerprints") is None
    report = ingest(raw, tmp_path / "d")
    assert (report.kept, report.pending, report.resumed_units) == (6, 0, 1)


@pytest.mark.slow
def test_where_nothing_can_be_read_nothing_is_committed(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        failing(broken, {f"{n}.png" for n in range(6)} | {"tiny.png"}, PermissionError(errno.EACCES, "no"))
        report = ingest(raw, tmp_path / "d")
    assert (report.kept, report.pending, report.version, report.failed) == (0, 7, -1, True)
    assert not (tmp_path / "d" / "staging").exists()
    assert ingest(raw, tmp_path / "d").kept == 6


@pytest.mark.slow
def test_frames_before_a_break_are_not_committed_twice(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = images.read

    def breaks_off(raw: RawFile, options: Any) -> Any:
        yield from read(raw, options)
        if raw.name == "2.png":
            raise OSError(errno.EIO, "no")

    with monkeypatch.context() as broken:
        broken.setattr(images, "read", breaks_off)
        write_folder(raw, {"a/2.png": encoded(photo(3))})  # the same picture as one that is read to its end
        first = ingest(raw, tmp_path / "d")
    assert (first.kept, first.pending) == (5, 2)
    balance(first)
    last = ingest(raw, tmp_path / "d")
    assert (last.kept, last.pending, last.reasons) == (6, 0, {"duplicate": 1, "too_small": 1})
    balance(last)
    rows = tables(tmp_path / "d")["index"]
    assert len({row["pixel_sha256"] for row in rows}) == len(rows) == 6


@pytest.mark.slow
def test_a_grown_source_reads_what_is_new_and_what_has_changed(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    write_folder(raw, {"new.png": encoded(photo(20)), "3.png": encoded(photo(21, height=100))})
    report = ingest(raw, tmp_path / "d")
    assert (report.files, report.known, report.read, report.changed) == (9, 6, 2, 1)
    assert (report.items, report.kept, report.rejected) == (2, 2, 0)
    balance(report)
    assert not report.failed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fingerprints", "raw_files", "rejects", "index"])
def test_what_a_job_that_ended_within_its_commit_has_read_is_not_known(
    name: str, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        ending(broken, name, StoreError("the storage failed"))
        if name == "index":
            assert ingest(raw, tmp_path / "d").repeated  # it is found committed
        else:
            with pytest.raises(StoreError):
                ingest(raw, tmp_path / "d")
    report = ingest(raw, tmp_path / "d")
    assert (report.kept, report.reasons, report.known) == (6, {"too_small": 1}, 0)
    balance(report)
    assert len(tables(tmp_path / "d")["index"]) == 6
    assert not verify(Dataset.open(str(tmp_path / "d")), deep=True).problems
    write_folder(raw, {"new.png": encoded(photo(20))})
    grown = ingest(raw, tmp_path / "d")
    assert (grown.known, grown.read, grown.kept) == (7, 1, 1)


@pytest.mark.slow
def test_a_job_that_was_never_completed_leaves_its_files_to_the_next_one(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Dataset._append

    def ends(self: Dataset, table: str, *arguments: Any) -> int:
        if table == "index":
            raise StoreError("the storage failed")
        return append(self, table, *arguments)

    with monkeypatch.context() as broken:
        broken.setattr(Dataset, "_append", ends)
        with pytest.raises(StoreError):
            ingest(raw, tmp_path / "d")
    write_folder(raw, {"new.png": encoded(photo(20))})
    report = ingest(raw, tmp_path / "d")
    assert (report.known, report.read, report.kept) == (0, 8, 7)


@pytest.mark.slow
def test_other_rules_read_all_again(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    report = ingest(raw, tmp_path / "d", quality={"min_side_px": 8})
    assert (report.known, report.read, report.kept) == (0, 7, 1)


@pytest.mark.slow
def test_rejects_are_tried_again_and_only_those(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        failing(broken, {"1.png"}, RejectError("unsupported"))
        assert ingest(raw, tmp_path / "d").reasons == {"too_small": 1, "unsupported": 1}

    def retry(reason: str) -> JobReport:
        return run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, retry_rejects=reason)

    report = retry("unsupported")
    assert (report.kept, report.reasons, report.read) == (6, {"too_small": 1}, 7)
    balance(report)
    assert retry("").reasons == {"too_small": 1}
    assert [row["reason"] for row in tables(tmp_path / "d")["rejects"]] == ["too_small"]
    with pytest.raises(ConfigError, match=r"no rejects of reason 'blank' — its reasons: too_small"):
        retry("blank")
    assert ingest(raw, tmp_path / "d").repeated


def test_there_is_nothing_to_retry_before_the_first_run(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="run the same command without --retry-rejects"):
        run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, retry_rejects="")
    assert not (tmp_path / "d").exists()


def test_a_rejected_row_has_the_tag_of_a_kept_one(raw: Path, tmp_path: Path) -> None:
    write_folder(raw, {"broken.png": b"nothing"})
    ingest(raw, tmp_path / "d", public_spec(modality="OCT"))
    assert {row["modality"] for row in tables(tmp_path / "d")["rejects"]} == {"OCT"}


@pytest.mark.slow
def test_the_same_job_twice_at_once_ends_well_both_times(raw: Path, tmp_path: Path) -> None:
    """The second one maps while the first one commits and sweeps what both have staged."""
    reports: list[JobReport] = []

    def start_another(now: Any) -> None:
        if now.stage == "resolve" and not reports:
            reports.append(JobReport(job_id="", source="", dataset="", version=-1))
            reports[0] = ingest(raw, tmp_path / "d", unit_files=2)

    settings = IngestSettings(unit_files=2)
    last = run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, settings=settings, progress=start_another)
    assert [report.kept for report in (*reports, last)] == [6, 6]
    assert last.repeated
    assert len(tables(tmp_path / "d")["index"]) == 6
    assert not (tmp_path / "d" / "staging").exists()
    ingest(raw, tmp_path / "alone", unit_files=2)
    assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "alone")


def test_attempts_are_numbered_and_complete_where_nothing_is_pending() -> None:
    assert Attempts(base="j").next_id() == "j"
    assert not Attempts(base="j").is_complete
    two = Attempts(base="j", jobs=[{"job_id": "j", "pending": 2}, {"job_id": "j-2", "pending": 0}])
    assert (two.ids, two.is_complete) == (["j", "j-2"], True)
    assert (two.next_id(), two.next_id(retry=True)) == ("j-3", "j-retry3")
