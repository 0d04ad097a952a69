"""Files that change or vanish: what leaves, what stays where it is, and that the end is that of a fresh job."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.job import run as running
from ingest.job.outgoing import Leaving, clear_after, find_outgoing
from ingest.job.run import JobReport, run_job
from ingest.job.sift import Mode
from ingest.raw.items import RawFile
from ingest.readers import images
from ingest.settings import IngestSettings
from ingest.staging.folder import Staging
from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.store import MemoryStore
from shards.subset.finding import find
from shards.subset.lock import create
from shards.subset.selection import Selection
from tests.ingest.job.test_commit import NUM_KILLS, YAML, start
from tests.ingest.material import encoded, photo, public_spec, shard_bytes, tables, write_folder

pytestmark = pytest.mark.slow

SETTINGS = IngestSettings(unit_files=4, shard_bytes=60_000, dedup={"near": False})
NUM_FILES = int(os.environ.get("BIOVFM_TEST_FILES", "2000"))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    files = {f"{n:02d}.png": encoded(photo(n)) for n in range(16)}
    return write_folder(tmp_path / "raw", files | {"z/copy.bmp": encoded(photo(3), "BMP")})


def grown(raw: Path, dataset: Path, **mode: bool) -> JobReport:
    report = run_job(public_spec(), str(raw), str(dataset), workers=0, settings=SETTINGS, mode=Mode(**mode))
    assert report.files == report.known + report.read + sum(report.ignored.values()) + report.pending
    assert report.items == report.kept + report.rejected
    return report


def keys_of(dataset: Path, table: str = "index") -> list[str]:
    return sorted(row["key"] for row in tables(dataset)[table])


def equals_a_fresh_job(raw: Path, dataset: Path, fresh: Path) -> None:
    grown(raw, fresh)
    assert keys_of(dataset) == keys_of(fresh) == keys_of(dataset, "fingerprints")
    reasons = [sorted(row["reason"] for row in tables(url)["rejects"]) for url in (dataset, fresh)]
    assert reasons[0] == reasons[1]  # which of two equal images stays may differ: the committed one does
    report = verify(Dataset.open(str(dataset)), deep=True)
    assert (report.problems, report.num_samples) == ((), len(keys_of(fresh)))


def change(raw: Path) -> None:
    """Two new files, two changed ones, one that turns into another's copy, and three that vanish."""
    write_folder(raw, {"new0.png": encoded(photo(50)), "new1.png": encoded(photo(51))})
    write_folder(raw, {"04.png": encoded(photo(60)), "05.png": encoded(photo(61)), "06.png": encoded(photo(7))})
    for name in ("03.png", "08.png", "09.png"):
        (raw / name).unlink()


def test_changed_and_vanished_files_end_as_a_fresh_job_does(raw: Path, tmp_path: Path) -> None:
    grown(raw, tmp_path / "d")
    change(raw)
    first = grown(raw, tmp_path / "d")
    assert (first.read, first.changed, first.vanished, first.pruned, first.removed) == (5, 3, 3, 0, 3)
    pruned = grown(raw, tmp_path / "d", prune=True)
    assert (pruned.read, pruned.vanished, pruned.pruned, pruned.removed, pruned.revived) == (1, 0, 3, 3, 1)
    equals_a_fresh_job(raw, tmp_path / "d", tmp_path / "fresh")
    assert grown(raw, tmp_path / "d", prune=True).repeated
    assert grown(raw, tmp_path / "d").repeated
    assert not (tmp_path / "d" / "staging").exists()


def test_all_of_it_in_one_job(raw: Path, tmp_path: Path) -> None:
    grown(raw, tmp_path / "d")
    change(raw)
    report = grown(raw, tmp_path / "d", prune=True)
    assert (report.read, report.changed, report.pruned, report.removed, report.revived) == (6, 3, 3, 6, 1)
    equals_a_fresh_job(raw, tmp_path / "d", tmp_path / "fresh")


def test_an_image_that_leaves_is_in_no_shard_of_the_new_version(raw: Path, tmp_path: Path) -> None:
    grown(raw, tmp_path / "d")
    (old,) = [row for row in tables(tmp_path / "d")["index"] if row["raw_path"] == "04.png"]
    write_folder(raw, {"04.png": encoded(photo(60))})
    grown(raw, tmp_path / "d")
    shards = {row["shard"] for row in tables(tmp_path / "d")["index"]}
    assert old["shard"] not in shards
    assert not [name for name in shards if old["key"].encode() in shard_bytes(tmp_path / "d")[name]]


def test_a_lock_from_before_streams_on(raw: Path, tmp_path: Path) -> None:
    grown(raw, tmp_path / "d")
    lock = create(Dataset.open(str(tmp_path / "d")), Selection())
    change(raw)
    grown(raw, tmp_path / "d", prune=True)
    found = find(lock)
    assert (found.version, found.same_order, found.lock.num_samples) == (0, True, 16)


def test_a_file_that_is_only_touched_keeps_its_sample_where_it_is(raw: Path, tmp_path: Path) -> None:
    grown(raw, tmp_path / "d")
    before, shards = tables(tmp_path / "d"), shard_bytes(tmp_path / "d")
    os.utime(raw / "02.png", (1e9, 1e9))
    os.utime(raw / "z/copy.bmp", (1e9, 1e9))
    report = grown(raw, tmp_path / "d")
    assert (report.read, report.changed, report.removed, report.kept) == (2, 2, 0, 0)
    after = tables(tmp_path / "d")
    assert [str(after[name]) for name in ("index", "fingerprints")] == [
        str(before[name]) for name in ("index", "fingerprints")
    ]
    assert shard_bytes(tmp_path / "d") == shards
    assert [row["raw_path"] for row in after["rejects"]] == ["z/copy.bmp"]
    assert grown(raw, tmp_path / "d").repeated


def test_contents_that_changed_behind_size_and_time_are_found_by_rehash(raw: Path, tmp_path: Path) -> None:
    write_folder(raw, {"02.bmp": encoded(photo(40), "BMP")})
    grown(raw, tmp_path / "d")
    state = (raw / "02.bmp").stat()
    write_folder(raw, {"02.bmp": encoded(photo(41), "BMP")})
    os.utime(raw / "02.bmp", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert grown(raw, tmp_path / "d").repeated
    report = grown(raw, tmp_path / "d", rehash=True)
    assert (report.read, report.removed, report.kept) == (18, 1, 1)
    equals_a_fresh_job(raw, tmp_path / "d", tmp_path / "fresh")


def test_files_that_come_back_are_read_again(raw: Path, tmp_path: Path) -> None:
    grown(raw, tmp_path / "d")
    (raw / "08.png").rename(tmp_path / "aside")
    assert grown(raw, tmp_path / "d", prune=True).pruned == 1
    (tmp_path / "aside").rename(raw / "08.png")
    report = grown(raw, tmp_path / "d")
    assert (report.repeated, report.read, report.kept) == (False, 1, 1)
    equals_a_fresh_job(raw, tmp_path / "d", tmp_path / "fresh")


def test_a_changed_file_that_cannot_be_read_now_keeps_what_came_of_it(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(raw, tmp_path / "d")
    write_folder(raw, {"04.png": encoded(photo(60))})
    read: Callable[[RawFile, Any], Any] = images.read

    def broken(raw: RawFile, options: Any) -> Any:
        if raw.name == "04.png":
            raise PermissionError(13, "no")
        return read(raw, options)

    with monkeypatch.context() as patch:
        patch.setattr(images, "read", broken)
        write_folder(raw, {"new.png": encoded(photo(70))})
        report = grown(raw, tmp_path / "d")
        assert (report.pending, report.removed, len(keys_of(tmp_path / "d"))) == (1, 0, 17)
    assert grown(raw, tmp_path / "d").removed == 1
    equals_a_fresh_job(raw, tmp_path / "d", tmp_path / "fresh")


def test_a_kill_between_the_commit_and_what_follows_is_made_up_for(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(raw, tmp_path / "d")
    change(raw)

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running, "clear_after", killed)
        with pytest.raises(KeyboardInterrupt):
            grown(raw, tmp_path / "d", prune=True)
    assert grown(raw, tmp_path / "d", prune=True).repeated
    equals_a_fresh_job(raw, tmp_path / "d", tmp_path / "fresh")


def test_a_near_duplicate_of_what_went_is_revived(tmp_path: Path) -> None:
    pictures = [photo(n, height=200, width=260) for n in range(4)]
    raw = write_folder(tmp_path / "raw", {f"{n}.png": encoded(picture) for n, picture in enumerate(pictures)})
    write_folder(raw, {"a/other.jpg": encoded(pictures[2], "JPEG")})
    first = run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0)
    assert first.reasons == {"near_duplicate": 1}
    (raw / "2.png").unlink()
    report = run_job(public_spec(), str(raw), str(tmp_path / "d"), workers=0, mode=Mode(prune=True))
    assert (report.revived, report.pruned, report.kept) == (1, 1, 1)
    assert not tables(tmp_path / "d")["rejects"]


def test_nothing_leaves_where_nothing_may(tmp_path: Path) -> None:
    dataset = Dataset.create(str(tmp_path / "d"))
    staging = Staging(MemoryStore(), "job")
    assert not find_outgoing(dataset, staging, [], Leaving(source="a", gone=["x"]), version=-1).keys
    clear_after(dataset, "job", source="a", gone=[])


@pytest.mark.slow
def test_a_grown_source_decodes_what_is_new_or_changed_and_nothing_else(tmp_path: Path) -> None:
    """Ten in a thousand are new, one is changed, one gone."""
    part = NUM_FILES // 1000
    raw = write_folder(tmp_path / "raw", {f"{n:05d}.jpg": small(n) for n in range(NUM_FILES)})
    settings = IngestSettings(dedup={"near": False})

    def run(**mode: bool) -> JobReport:
        return run_job(public_spec(), str(raw), str(tmp_path / "d"), settings=settings, mode=Mode(**mode))

    assert run().kept == NUM_FILES
    write_folder(raw, {f"new{n:05d}.jpg": small(NUM_FILES + n) for n in range(10 * part)})
    write_folder(raw, {f"{n:05d}.jpg": small(2 * NUM_FILES + n) for n in range(part)})
    for n in range(part, 2 * part):
        (raw / f"{n:05d}.jpg").unlink()
    report = run(prune=True)
    assert (report.read, report.items, report.kept) == (11 * part, 11 * part, 11 * part)
    assert (report.known, report.changed, report.pruned, report.removed) == (NUM_FILES - 2 * part, part, part, 2 * part)
    rows = Dataset.open(str(tmp_path / "d")).query("SELECT count(DISTINCT raw_path) FROM samples")
    assert rows[0][0].as_py() == NUM_FILES + 9 * part


def small(number: int) -> bytes:
    return encoded(photo(number, height=40, width=40), "JPEG")


@pytest.mark.slow
def test_kill_at_random_moments_of_a_second_job(raw: Path, tmp_path: Path) -> None:
    """Files came, changed and vanished; the end is that of a quiet second job, and the first version stays whole."""
    import shutil

    (tmp_path / "s.yaml").write_text(YAML)

    def begin(dataset: Path) -> subprocess.Popen[bytes]:
        return start(raw, dataset, tmp_path / "s.yaml", "--prune")

    first, quiet, shaken = tmp_path / "first", tmp_path / "quiet", tmp_path / "shaken"
    assert begin(first).wait(120) == 0
    change(raw)
    shutil.copytree(first, quiet)
    started = time.monotonic()
    assert begin(quiet).wait(120) == 0
    whole = time.monotonic() - started
    rng, kills = random.Random(7), 0
    while kills < NUM_KILLS:
        shutil.rmtree(shaken, ignore_errors=True)
        shutil.copytree(first, shaken)
        for _ in range(3):
            process = begin(shaken)
            try:
                process.wait(rng.uniform(0.3, 1.0) * whole)
            except subprocess.TimeoutExpired:
                kills += 1
                os.kill(process.pid, signal.SIGKILL) if rng.random() < 0.5 else os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)
        time.sleep(1.5)  # orphaned workers end by themselves
        assert begin(shaken).wait(120) == 0
        assert str(tables(shaken)) == str(tables(quiet))
        assert len(Dataset.open(str(shaken)).query("SELECT key FROM samples", version=0)) == 16
        report = verify(Dataset.open(str(shaken)), deep=True)
        assert not report.problems
        assert not (shaken / "staging").exists()
