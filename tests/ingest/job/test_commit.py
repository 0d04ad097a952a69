"""Kills at random moments, jobs that commit at once, jobs that are shared, and the data list."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ingest.job.concede import concede_duplicates
from ingest.job.run import Share, run_job
from ingest.settings import IngestSettings
from ingest.source.data_list import load_list
from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.errors import ConfigError
from tests.ingest.material import encoded, ingest, photo, public_spec, shard_bytes, tables, write_folder, zip_of
from tests.shards.builders import add_source, jpeg

SETTINGS = IngestSettings(unit_files=4, shard_bytes=60_000, dedup={"near": False})
NUM_KILLS = int(os.environ.get("BIOVFM_TEST_KILLS", "6"))
HEEDING_CTRL_C = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)  # background jobs inherit that it is ignored
os.execv(sys.executable, [sys.executable, "-m", "infra.cli", *sys.argv[1:]])
"""
YAML = "unit_files: 4\nshard_bytes: 60000\ndedup: {near: false}\n"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    files = {f"{i:02d}.png": encoded(photo(i)) for i in range(24)} | {"copy.bmp": encoded(photo(3), "BMP")}
    packed = {f"{i}.jpg": encoded(photo(i), "JPEG") for i in range(30, 40)}
    return write_folder(tmp_path / "raw", files | {"z.zip": zip_of(packed)})


def start(raw: Path, dataset: Path, settings: Path, *more: str) -> subprocess.Popen[bytes]:
    words = ["ingest", "test", str(raw), str(dataset), "--modality", "Fundus", "--deidentified"]
    command = [sys.executable, "-m", "infra.cli", *words, "--settings", str(settings), *more]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)


@pytest.mark.slow
def test_kill_at_random_moments(raw: Path, tmp_path: Path) -> None:
    """SIGKILL to the job alone or to it and its worker; every re-run goes on, and the end is that of a quiet run."""
    (tmp_path / "s.yaml").write_text(YAML)
    quiet, shaken = tmp_path / "quiet", tmp_path / "shaken0"
    started = time.monotonic()
    assert start(raw, quiet, tmp_path / "s.yaml").wait(120) == 0
    whole = time.monotonic() - started
    rng = random.Random(5)
    kills = ends = 0
    while kills < NUM_KILLS:
        process = start(raw, shaken, tmp_path / "s.yaml")
        try:
            process.wait(rng.uniform(0.15, 1.0) * whole)
        except subprocess.TimeoutExpired:
            kills += 1
            os.kill(process.pid, signal.SIGKILL) if rng.random() < 0.5 else os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        if (shaken / "index").exists() or kills == NUM_KILLS:
            _ends_like(quiet, shaken, raw, tmp_path / "s.yaml")
            ends += 1
            shaken = tmp_path / f"shaken{ends}"


def _ends_like(quiet: Path, shaken: Path, raw: Path, settings: Path) -> None:
    time.sleep(1.5)  # orphaned workers end by themselves
    assert start(raw, shaken, settings).wait(120) == 0
    assert shard_bytes(shaken) == shard_bytes(quiet)
    assert str(tables(shaken)) == str(tables(quiet))
    assert not (shaken / "staging").exists()


@pytest.mark.slow
@pytest.mark.process
def test_sigterm_leaves_a_job_that_goes_on(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(YAML)
    process = start(raw, tmp_path / "d", tmp_path / "s.yaml")
    while not list((tmp_path / "d").glob("staging/*/u*.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in (0, 130)
    report = run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, settings=SETTINGS)
    assert report.kept == 34


@pytest.mark.slow
def test_ctrl_c_is_one_line(raw: Path, tmp_path: Path) -> None:
    """As the first process begins to work; all of them get the signal too."""
    words = ["ingest", "test", str(raw), str(tmp_path / "d"), "--modality", "Fundus", "--deidentified", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING_CTRL_C, *words, "--workers", "3"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not list((tmp_path / "d").glob("staging/*")) and process.poll() is None:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    assert "Traceback" not in said
    if process.returncode:
        assert said.splitlines()[-1].startswith("biovfm: interrupted; nothing is broken")


@pytest.mark.slow
def test_two_jobs_at_once_both_land_without_duplicates(tmp_path: Path) -> None:
    """They share ten images; whichever commits second drops them."""
    a = write_folder(tmp_path / "a", {f"{i}.png": encoded(photo(i)) for i in range(20)})
    b = write_folder(tmp_path / "b", {f"{i}.bmp": encoded(photo(i), "BMP") for i in range(10, 30)})
    barrier = threading.Barrier(2)
    errors: list[BaseException] = []

    def job(name: str, raw: Path) -> None:
        def wait_before_commit(progress: object) -> None:
            if getattr(progress, "stage", "") == "commit":
                barrier.wait(60)

        try:
            spec = public_spec(name)
            run_job(spec, str(raw), str(tmp_path / "d"), workers=0, settings=SETTINGS, progress=wait_before_commit)
        except BaseException as error:  # noqa: BLE001  # shown by the test
            errors.append(error)

    Dataset.create(str(tmp_path / "d"))
    threads = [threading.Thread(target=job, args=pair) for pair in (("a", a), ("b", b))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    found = tables(tmp_path / "d")
    assert len(found["index"]) == 30
    assert len({row["pixel_sha256"] for row in found["index"]}) == 30
    assert {row["source"] for row in found["index"]} == {"a", "b"}
    assert [row["reason"] for row in found["rejects"]] == ["duplicate"] * 10


@pytest.mark.slow
def test_conceding_twice_changes_nothing(raw: Path, tmp_path: Path) -> None:
    first = ingest(raw, tmp_path / "d", dedup={"near": False})
    assert concede_duplicates(Dataset.open(str(tmp_path / "d")), first.job_id) == 0


def test_a_concession_that_breaks_off_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.create(str(tmp_path / "d"))
    images = [jpeg(number) for number in range(4)]
    add_source(dataset, "alpha", "CT", images)
    add_source(dataset, "beta", "CT", images[2:])

    def crash(*_: object, **_options: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("deltalake.DeltaTable.delete", crash)
        with pytest.raises(OSError, match="killed"):
            concede_duplicates(dataset, "beta-CT")
    assert concede_duplicates(dataset, "beta-CT") == 2
    found = tables(tmp_path / "d")
    assert [row["source"] for row in found["index"]].count("beta") == 0
    assert [row["reason"] for row in found["rejects"]] == ["duplicate"] * 2


@pytest.mark.slow
def test_a_table_that_is_packed_anew_keeps_the_order_of_its_shards(tmp_path: Path) -> None:
    """Rows come shard by shard, each with the place of its bytes, whatever unit and tar they were staged in."""
    files = {f"{i:02d}.png": encoded(photo(i)) for i in range(20)} | {"zz.bmp": encoded(photo(3), "BMP")}
    raw = write_folder(tmp_path / "raw", files)
    ingest(raw, tmp_path / "d", unit_files=3, shard_bytes=30_000, dedup={"near": False})
    table = Dataset.open(str(tmp_path / "d")).table("index")
    assert table is not None
    rows = table.to_pyarrow_table().to_pylist()
    assert len(rows) == 20
    assert len({row["shard"] for row in rows}) > 2
    assert rows == sorted(rows, key=lambda row: (row["shard"], row["shard_row"]))
    assert verify(Dataset.open(str(tmp_path / "d")), deep=True).problems == ()


@pytest.mark.slow
def test_tasks_that_share_a_job_make_the_same_dataset(raw: Path, tmp_path: Path) -> None:
    run_job(public_spec(), str(raw), str(tmp_path / "whole"), workers=0, settings=SETTINGS)
    reports = [
        run_job(
            public_spec(),
            str(raw),
            str(tmp_path / "d"),
            workers=0,
            settings=SETTINGS,
            share=Share(num_tasks=3, task_index=index),
        )
        for index in (2, 0, 1)
    ]
    assert [report.unfinished for report in reports] == [True, True, False]
    assert shard_bytes(tmp_path / "d") == shard_bytes(tmp_path / "whole")
    assert str(tables(tmp_path / "d")) == str(tables(tmp_path / "whole"))


@pytest.mark.slow
def test_a_data_list_recreates_its_selection(raw: Path, tmp_path: Path) -> None:
    run_job(public_spec(), str(raw), str(tmp_path / "whole"), workers=0, settings=SETTINGS)
    chosen = [row for row in tables(tmp_path / "whole")["index"] if int(row["pixel_sha256"], 16) % 3 == 0]
    path = tmp_path / "list.tsv"
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(
            stream, ["key", "source", "raw_path", "raw_frame"], delimiter="\t", extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows(chosen)
    listed = load_list(path, "test")
    report = run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, settings=SETTINGS, listed=listed)
    assert (report.kept, report.reasons) == (len(chosen), {"not_listed": 35 - len(chosen)})
    keys = {row["key"] for row in tables(tmp_path / "d")["index"]}
    assert keys == {row["key"] for row in chosen}
    with pytest.raises(ConfigError, match="nothing of source"):
        load_list(path, "other")
