"""How the last job ended stays in the file, whatever becomes of the runs after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.parser import text_string_to_metric_families

from infra.cli import main
from infra.metrics.last_job import LastJob
from ingest.job.report import JobReport
from tests.ingest.material import encoded, photo, write_folder

Figures = dict[tuple[str, ...], float]


def figures(path: Path) -> Figures:
    """Name after `last_` and label values → value."""
    return {
        (sample.name.removeprefix("biovfm_ingest_last_"), *(value for _, value in sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
        if sample.name.startswith("biovfm_ingest_last_")
    }


def report(**fields: Any) -> JobReport:
    return JobReport(**{"job_id": "j", "source": "a", "dataset": "d", "version": 1, "kept": 5, **fields})


def run(path: Path, *, source: str = "a", done: JobReport | None = None, failed: bool = False) -> Figures:
    """What the file says after one run: a job that ends, or one that stops with an error."""
    registry = CollectorRegistry()
    last = LastJob(registry, source=source, file=path)
    if done is None:
        last.fail()
    else:
        last.end(done, failed=failed)
    write_to_textfile(str(path), registry)
    return figures(path)


def test_a_run_that_fails_keeps_what_the_last_job_left(tmp_path: Path) -> None:
    path = tmp_path / "job.prom"
    first = run(path, done=report(kept=5, reasons={"blank": 2}))
    assert first["kept_images", "a"] == 5
    assert first["rejected_items", "blank", "a"] == 2
    assert ("failure_timestamp_seconds", "a") not in first
    second = run(path)
    failed = second.pop(("failure_timestamp_seconds", "a"))
    assert second == first
    assert failed >= first["success_timestamp_seconds", "a"]
    third = run(path, done=report(kept=7, reasons={"small": 1}))
    assert third["failure_timestamp_seconds", "a"] == failed
    assert third["success_timestamp_seconds", "a"] >= failed
    assert third["kept_images", "a"] == 7
    assert [name for name in third if name[0] == "rejected_items"] == [("rejected_items", "small", "a")]


@pytest.mark.parametrize(("failed", "stamped"), [(True, True), (False, False)])
def test_a_job_with_pending_files_is_no_success(tmp_path: Path, failed: bool, stamped: bool) -> None:
    """It has failed unless --allow-incomplete was given."""
    path = tmp_path / "job.prom"
    first = run(path, done=report())
    second = run(path, done=report(kept=1, pending=3), failed=failed)
    assert second["success_timestamp_seconds", "a"] == first["success_timestamp_seconds", "a"]
    assert (second["kept_images", "a"], second["pending_raw_files", "a"]) == (1, 3)
    assert (("failure_timestamp_seconds", "a") in second) is stamped


def test_a_task_that_leaves_the_commit_to_others_tells_no_end(tmp_path: Path) -> None:
    path = tmp_path / "job.prom"
    first = run(path, done=report())
    assert run(path, done=report(kept=0, unfinished=True)) == first


def test_jobs_of_several_sources_can_have_one_file(tmp_path: Path) -> None:
    path = tmp_path / "job.prom"
    first = run(path, done=report(reasons={"blank": 2}))
    second = run(path, source="b", done=report(source="b", kept=9, reasons={"blank": 1}))
    assert first.items() <= second.items()
    assert second["kept_images", "b"] == 9
    assert run(path)["rejected_items", "blank", "b"] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"no figures",
        b"\xff\xfe",
        b'biovfm_ingest_last_kept_images{other="a"} 1\n',
        b'biovfm_ingest_last_kept_images{source="a"} x\n',
        b"biovfm_ingest_last_kept_images 1\nbiovfm_ingest_last_unknown 1\n",
    ],
)
def test_a_file_that_is_not_ours_is_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "job.prom"
    path.write_bytes(content)
    assert set(run(path)) == {("failure_timestamp_seconds", "a")}


@pytest.mark.parametrize("how", ["no raw data", "wrong settings", "interrupted"])
def test_a_command_that_fails_keeps_the_last_success(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_folder(tmp_path / "raw", {f"{number}.png": encoded(photo(number)) for number in range(3)})
    path = tmp_path / "ingest.prom"
    command = ["ingest", "own", str(raw), str(tmp_path / "d"), "--modality", "US", "--workers", "0", "--deidentified"]
    command += ["--metrics-file", str(path)]
    assert main(command) == 0
    first = figures(path)
    assert first["success_timestamp_seconds", "own"] > 1.7e9
    if how == "no raw data":
        raw.rename(tmp_path / "elsewhere")
    elif how == "wrong settings":
        (tmp_path / "settings.yaml").write_text("nonsense: 1")
        command += ["--settings", str(tmp_path / "settings.yaml")]
    else:
        monkeypatch.setattr("ingest.job.run.run_job", interrupt)
    assert main(command) == {"no raw data": 1, "wrong settings": 2, "interrupted": 130}[how]
    second = figures(path)
    assert second.pop(("failure_timestamp_seconds", "own")) >= first["success_timestamp_seconds", "own"]
    assert second == first


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_file_never_lacks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while a run is at work, which may be killed."""
    path = tmp_path / "ingest.prom"
    first = run(path, source="own", done=report(source="own"))
    seen: list[Figures] = []

    def look(*_: object, **__: object) -> None:
        seen.append(figures(path))
        raise KeyboardInterrupt

    monkeypatch.setattr("ingest.job.run.run_job", look)
    command = ["ingest", "own", str(tmp_path), str(tmp_path / "d"), "--modality", "US", "--workers", "0"]
    assert main([*command, "--deidentified", "--metrics-file", str(path)]) == 130
    assert seen == [first]
