"""A job end to end: counts, determinism, idempotence, resume, isolation of poison."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.engines.base import Supervision, Task, TaskEvent
from ingest.engines.local import LocalEngine
from ingest.job.run import JobReport, run_job
from ingest.raw.items import RawFile
from ingest.readers.base import RawImage, ReadOptions
from ingest.settings import IngestSettings
from ingest.source.spec import load_spec
from shards.dataset.dataset import Dataset
from shards.dataset.shard_file import read_samples
from shards.errors import ConfigError, EngineError, MachineError, SourceError
from tests.ingest.material import (
    encoded,
    ingest,
    photo,
    public_spec,
    shard_bytes,
    tables,
    tar_of,
    write_folder,
    zip_of,
)

ZEROS = b"\0" * (4 << 20)
SMALL: dict[str, Any] = {"unit_files": 5, "shard_bytes": 60_000, "dedup": {"near": False}}


@pytest.mark.slow
def test_a_job_does_not_read_the_dataset_that_lies_in_its_raw_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in", {f"{n}.png": encoded(photo(n)) for n in range(4)})
    first = ingest(folder, folder / "data")
    assert (first.kept, first.ignored) == (4, {})
    again = ingest(folder, folder / "data")
    assert (again.repeated, again.version, again.ignored) == (True, 0, {"dataset of biovfm": 1})
    write_folder(folder, {"more.png": encoded(photo(9))})
    grown = ingest(folder, folder / "data")
    assert (grown.files, grown.known, grown.read, grown.version) == (6, 4, 1, 1)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Forty good images in folder, zip and tar.gz, with copies and with what real folders also hold."""
    good = {f"{i:02d}.png": encoded(photo(i)) for i in range(20)}
    jpegs = {f"j{i:02d}.jpg": encoded(photo(i), "JPEG") for i in range(20, 30)}
    packed = {f"t{i:02d}.png": encoded(photo(i)) for i in range(30, 40)}
    bad = {
        "cut.jpg": jpegs["j20.jpg"][:900],
        "empty.png": b"",
        "text.dcm": b"this is no DICOM file, only a text\n" * 9,
        "bomb.zip": zip_of({"bomb.png": ZEROS}),
        "tiny.png": encoded(photo(1, height=16, width=16)),
        "blank.png": encoded(photo(1) * 0 + 9),
        "strip.png": encoded(photo(1, height=30, width=600)),
        "copy_of_00.tif": encoded(photo(0), "TIFF"),
        "notes.txt": b"hello",
    }
    folder = tmp_path / "raw"
    write_folder(folder, good | bad)
    return write_folder(folder, {"z.zip": zip_of(jpegs), "y.tar.gz": tar_of(packed, "w:gz")})


@pytest.mark.slow
def test_counts_add_up_and_every_reject_has_its_reason(raw: Path, tmp_path: Path) -> None:
    report = ingest(raw, tmp_path / "d")
    assert (report.files, report.read, report.items, report.kept, report.rejected) == (49, 48, 48, 40, 8)
    assert report.ignored == {"txt": 1}
    found = tables(tmp_path / "d")
    assert {row["raw_path"]: row["reason"] for row in found["rejects"]} == {
        "cut.jpg": "unreadable",
        "empty.png": "empty_file",
        "text.dcm": "unreadable",
        "zip://bomb.png::bomb.zip": "decompression_bomb",
        "tiny.png": "too_small",
        "blank.png": "blank",
        "strip.png": "extreme_aspect",
        "copy_of_00.tif": "duplicate",
    }
    assert len(found["index"]) == len(found["fingerprints"]) == 40
    assert all(math.isnan(row["window_center"]) for row in found["index"])
    assert Dataset.open(str(tmp_path / "d")).jobs()[0]["items"] == 48


@pytest.mark.slow
def test_index_offsets_point_at_the_images_and_json_repeats_the_row(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d", **SMALL)
    rows = {row["key"]: row for row in tables(tmp_path / "d")["index"]}
    seen = 0
    for name, data in shard_bytes(tmp_path / "d").items():
        with (tmp_path / "d" / name).open("rb") as stream:
            for sample in read_samples(stream):
                row = rows[sample.key]
                assert row["shard"] == name
                assert data[row["byte_offset"] : row["byte_offset"] + row["byte_length"]] == sample.image
                for column in ("source", "modality", "group_id", "raw_path", "raw_frame", "pixel_sha256", "width"):
                    assert sample.meta[column] == row[column]
                seen += 1
    assert seen == 40


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.torch
def test_webdataset_reads_every_sample(raw: Path, tmp_path: Path) -> None:
    import webdataset

    ingest(raw, tmp_path / "d", **SMALL)
    urls = [str(tmp_path / "d" / name) for name in shard_bytes(tmp_path / "d")]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert len(samples) == 40
    assert all(sample["json"]["key"] == sample["__key__"] and sample["jpg"].size == (128, 96) for sample in samples)


@pytest.mark.slow
def test_running_twice_changes_nothing(raw: Path, tmp_path: Path) -> None:
    first = ingest(raw, tmp_path / "d")
    before = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "d").rglob("*"))}
    second = ingest(raw, tmp_path / "d")
    assert second.repeated
    assert (second.version, second.kept, second.reasons) == (first.version, first.kept, first.reasons)
    assert {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "d").rglob("*"))} == before
    assert not (tmp_path / "d" / "staging").exists()


@pytest.mark.slow
def test_what_a_killed_worker_left_is_swept(raw: Path, tmp_path: Path) -> None:
    """Before the commit a half-written unit, after it the empty folder of one."""
    report = ingest(raw, tmp_path / "other")
    work = tmp_path / "d" / "staging" / report.job_id / "work" / "biovfm-left"
    work.mkdir(parents=True)
    (work / "u000000-fundus-0000.tar").write_bytes(b"half")
    assert ingest(raw, tmp_path / "d").job_id == report.job_id
    assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "other")
    assert not (tmp_path / "d" / "staging").exists()
    work.mkdir(parents=True)
    assert ingest(raw, tmp_path / "d").repeated
    assert not (tmp_path / "d" / "staging").exists()


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    for workers in (0, 1, 2):
        ingest(raw, tmp_path / str(workers), workers=workers, **SMALL)
    first = tmp_path / "0"
    assert len(shard_bytes(first)) > 2
    for workers in (1, 2):
        assert shard_bytes(tmp_path / str(workers)) == shard_bytes(first)
        assert str(tables(tmp_path / str(workers))) == str(tables(first))


@pytest.mark.slow
def test_committed_images_win_over_a_later_source(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    more = write_folder(tmp_path / "more", {"a.bmp": encoded(photo(3), "BMP"), "b.png": encoded(photo(99))})
    report = ingest(more, tmp_path / "d", public_spec("later"))
    assert report.reasons == {"duplicate": 1}
    (row,) = [row for row in tables(tmp_path / "d")["index"] if row["source"] == "later"]
    assert row["raw_path"] == "b.png"


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_finished_units(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "whole", **SMALL)

    class StopHereError(Exception):
        pass

    def stop_in_the_middle(progress: object) -> None:
        if getattr(progress, "done", 0) >= 15:
            raise StopHereError

    settings = IngestSettings(**SMALL)
    with pytest.raises(StopHereError):
        run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, settings=settings, progress=stop_in_the_middle)
    assert Dataset.open(str(tmp_path / "d")).version() == -1
    report = ingest(raw, tmp_path / "d", **SMALL)
    assert 0 < report.resumed_units < report.units
    assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "whole")
    assert str(tables(tmp_path / "d")) == str(tables(tmp_path / "whole"))
    assert not (tmp_path / "d" / "staging").exists()


@pytest.mark.slow
def test_a_promoted_but_uncommitted_job_leaves_no_orphan(raw: Path, tmp_path: Path) -> None:
    """Killed before its commit, and overtaken by another job that holds some of its images."""

    class StopHereError(Exception):
        pass

    def stop_at_commit(progress: object) -> None:
        if getattr(progress, "stage", "") == "commit":
            raise StopHereError

    settings = IngestSettings(**SMALL)
    with pytest.raises(StopHereError):
        run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, settings=settings, progress=stop_at_commit)
    assert shard_bytes(tmp_path / "d")
    other = write_folder(tmp_path / "other", {f"{i}.png": encoded(photo(i)) for i in range(0, 40, 3)})
    ingest(other, tmp_path / "d", public_spec("other"))
    report = ingest(raw, tmp_path / "d", **SMALL)
    assert report.reasons["duplicate"] == 1 + 11
    rows = tables(tmp_path / "d")["index"]
    assert len(rows) == 43
    assert {row["shard"] for row in rows} == set(shard_bytes(tmp_path / "d"))


def test_an_empty_or_wrong_raw_folder_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(SourceError, match=r"holds none of .*sources new"):
        ingest(tmp_path / "raw", tmp_path / "d")
    with pytest.raises(SourceError, match=r"holds none of .*sources check drive"):
        ingest(tmp_path / "raw", tmp_path / "d", load_spec("drive"))
    (tmp_path / "list.csv").write_text("path\na.png\n")
    with pytest.raises(SourceError, match="--reader list"):
        ingest(tmp_path / "list.csv", tmp_path / "d")
    with pytest.raises(SourceError, match="no raw data"):
        ingest(tmp_path / "nowhere", tmp_path / "d")


def test_private_sources_need_a_secret(raw: Path, tmp_path: Path) -> None:
    from ingest.source.spec import from_flags

    with pytest.raises(ConfigError, match="secret"):
        ingest(raw, tmp_path / "d", from_flags(name="mine", modality="CT"))


def crash_or_echo(context: object, payload: int, beat: object, skip: object) -> list[object]:
    """An engine function whose steps 3 and 7 kill the process."""
    out: list[object] = []
    for step in range(10):
        beat(step)  # type: ignore[operator]
        if step in skip:  # type: ignore[operator]
            out.append(skip[step])  # type: ignore[index]
            continue
        if payload == 1 and step in (3, 7):
            os._exit(11)
        if payload == 2 and step == 5:
            time.sleep(60)
        if payload == 3:
            raise OSError("storage is away")
        out.append(step)
    return out


def results(engine: LocalEngine, payloads: list[int]) -> dict[int, object]:
    tasks = [Task(index=payload, payload=payload) for payload in payloads]
    with engine:
        return {event.index: event.result for event in engine.run(crash_or_echo, None, tasks) if event.done}


@pytest.mark.slow
def test_crashes_and_hangs_cost_their_own_step_only() -> None:
    engine = LocalEngine(2, Supervision(step_timeout_seconds=1.5, step_attempts=1))
    found = results(engine, [0, 1, 2])
    assert found[0] == list(range(10))
    assert found[1] == [0, 1, 2, "crashed", 4, 5, 6, "crashed", 8, 9]
    assert found[2] == [0, 1, 2, 3, 4, "no progress for 1.5 s", 6, 7, 8, 9]


def process_id(context: object, payload: int, beat: object, skip: object) -> tuple[object, int]:
    """An engine function."""
    return context, os.getpid()


@pytest.mark.slow
def test_processes_stay_for_the_next_run_and_end_with_the_engine() -> None:
    tasks = [Task(index=number, payload=number) for number in range(6)]

    def run(context: str) -> list[Any]:
        return [event.result for event in engine.run(process_id, context, tasks) if event.done]

    with LocalEngine(2) as engine:
        found = run("a") + run("b")
        hanging = engine.run(crash_or_echo, None, [Task(index=0, payload=2)])
        next(hanging)
        hanging.close()  # takes the process along that was at work
        found += run("c")
        assert [context for context, _ in found] == ["a"] * 6 + ["b"] * 6 + ["c"] * 6
        assert len({pid for _, pid in found[:12]}) <= 2
        assert os.getpid() not in {pid for _, pid in found}
    assert not any(Path(f"/proc/{pid}").exists() for _, pid in found)


@pytest.mark.slow
def test_a_task_that_always_raises_fails_the_job() -> None:
    with pytest.raises(EngineError, match="storage is away"):
        results(LocalEngine(1), [3])


@pytest.mark.slow
def test_report_is_json(raw: Path, tmp_path: Path) -> None:
    import json

    report = ingest(raw, tmp_path / "d")
    assert isinstance(report, JobReport)
    assert json.loads(json.dumps(report.to_dict()))["kept"] == 40


def test_a_picture_without_pixels_is_counted_once(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"good.png": encoded(photo(1))})
    np.save(raw / "colour.npy", np.zeros((0, 8, 3), np.uint8))
    np.save(raw / "gray.npy", np.zeros((8, 0), np.uint8))
    report = ingest(raw, tmp_path / "d")
    assert (report.files, report.items, report.kept, report.rejected) == (3, 3, 1, 2)


def test_a_file_that_breaks_in_the_middle_is_its_images_and_one_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ingest.readers.images as module

    def two_then_break(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
        yield RawImage(pixels=photo(1), frame="p0000", part_of_volume=True)
        yield RawImage(pixels=photo(2), frame="p0001", part_of_volume=True)
        raise ValueError("a value out of the file")

    monkeypatch.setattr(module, "read", two_then_break)
    raw = write_folder(tmp_path / "raw", {"a.png": b"x"})
    report = ingest(raw, tmp_path / "d")
    assert (report.files, report.items, report.kept, report.reasons) == (1, 3, 2, {"undecodable": 1})
    (row,) = tables(tmp_path / "d")["rejects"]
    assert row["detail"] == "ValueError"


@pytest.mark.slow
def test_an_image_that_cannot_be_prepared_costs_neither_its_file_nor_its_likeness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ingest.job.map as job
    import ingest.readers.images as readers

    def four(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
        for frame, number in (("p0000", 1), ("p0001", 2), ("p0002", 3), ("p0003", 2)):
            yield RawImage(pixels=photo(number), frame=frame, part_of_volume=True)

    calls = iter([None, ValueError("a value out of the file"), None, None])
    encode = job.encode

    def second_fails(*arguments: Any, **options: Any) -> Any:
        if error := next(calls):
            raise error
        return encode(*arguments, **options)

    monkeypatch.setattr(readers, "read", four)
    monkeypatch.setattr(job, "encode", second_fails)
    raw = write_folder(tmp_path / "raw", {"a.png": b"x"})
    report = ingest(raw, tmp_path / "d")
    assert (report.items, report.kept, report.reasons) == (4, 3, {"undecodable": 1})
    (row,) = tables(tmp_path / "d")["rejects"]
    assert (row["raw_frame"], row["detail"]) == ("p0001", "ValueError")
    assert [row["raw_frame"] for row in tables(tmp_path / "d")["index"]] == ["p0000", "p0002", "p0003"]


@pytest.mark.slow
def test_a_machine_that_has_no_memory_for_an_image_is_no_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ingest.job.map as job

    def no_memory(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(1))})
    with monkeypatch.context() as broken:
        broken.setattr(job, "encode", no_memory)
        with pytest.raises(MachineError, match="memory"):
            ingest(raw, tmp_path / "d")
    assert ingest(raw, tmp_path / "d").kept == 1


class _Noting(LocalEngine):
    """Notes where the workers are sent."""

    def __init__(self) -> None:
        super().__init__(0)
        self.raw_urls: set[str] = set()

    def run(self, function: Any, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        self.raw_urls.add(context.raw_url)
        return super().run(function, context, tasks)


def test_workers_in_other_folders_find_a_relative_raw_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "raw", {"0.png": encoded(photo(0))})
    monkeypatch.chdir(tmp_path)
    engine = _Noting()
    report = run_job(public_spec(), "./raw", "data", engine=engine)
    assert report.kept == 1
    assert engine.raw_urls == {str(tmp_path / "raw")}
