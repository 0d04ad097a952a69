"""Samples that are withdrawn are gone from the newest version, stay out, and leave everything else as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from ingest.withdrawal.choose import Asked, choose
from ingest.withdrawal.journal import open_plans
from ingest.withdrawal.withdraw import withdraw
from shards.dataset.dataset import Dataset
from shards.dataset.verify import verify
from shards.errors import ConfigError, SampleIndexError
from tests.ingest.material import encoded, photo, write_folder, zip_of
from tests.ingest.withdrawal.material import (
    IMAGES,
    PATIENTS,
    SECRET,
    group_of,
    members_of,
    patients_spec,
    take_in,
    write_patients,
)

pytestmark = pytest.mark.slow
COPY = encoded(photo(100))
"""The first image of patient 1."""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "raw")


@pytest.fixture
def dataset(raw: Path, tmp_path: Path) -> Dataset:
    assert take_in(raw, str(tmp_path / "d")).kept == PATIENTS * IMAGES
    return Dataset.open(str(tmp_path / "d"))


def keys_of(dataset: Dataset) -> set[str]:
    return set(dataset.query("SELECT key FROM samples")["key"].to_pylist())


def test_a_patient_is_found_by_the_own_identifier_and_goes_from_all_tables(dataset: Dataset) -> None:
    group = group_of(dataset, "patient-1")
    theirs = dataset.query("SELECT * FROM samples WHERE group_id = ?", params=[group]).to_pylist()
    before, version = members_of(dataset), dataset.version()
    done = withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    assert (done.num_samples, done.num_files, done.by_source) == (IMAGES, IMAGES, {"ward": IMAGES})
    keys = {row["key"] for row in theirs}
    assert keys_of(dataset).isdisjoint(keys)
    for table in ("fingerprints", "rejects", "raw_files"):
        text = str(dataset.query(f"SELECT * FROM {table}").to_pylist())
        assert not [row for row in theirs if row["key"] in text or row["raw_path"] in text]
    assert {name: data for name, data in before.items() if name.partition(".")[0] not in keys} == members_of(dataset)
    assert not verify(dataset, deep=True).problems
    old = dataset.query("SELECT key FROM samples", version=version)["key"].to_pylist()
    assert keys <= set(old), "who reads the old version reads on"
    assert not list(open_plans(dataset))


@pytest.mark.parametrize("what", ["pseudonym", "key", "file", "folder", "hidden path", "source"])
def test_everything_that_names_samples_is_taken(dataset: Dataset, what: str) -> None:
    group = group_of(dataset, "patient-2")
    row = dataset.query("SELECT * FROM samples WHERE group_id = ? ORDER BY key", params=[group]).to_pylist()[0]
    asked, num = {
        "pseudonym": (Asked(groups=(group,)), IMAGES),
        "key": (Asked(keys=(row["key"],)), 1),
        "file": (Asked(raw_paths=("patient-2/0.png",)), 1),
        "folder": (Asked(raw_paths=("patient-2/",)), IMAGES),
        "hidden path": (Asked(raw_paths=(row["raw_path"],)), 1),
        "source": (Asked(sources=("ward",)), PATIENTS * IMAGES),
    }[what]
    assert withdraw(dataset, asked, SECRET).num_samples == num
    assert len(keys_of(dataset)) == PATIENTS * IMAGES - num
    assert withdraw(dataset, asked, SECRET).repeated


def test_a_source_narrows_a_group_down(dataset: Dataset, tmp_path: Path) -> None:
    other = write_patients(tmp_path / "other", [7])
    take_in(other, dataset.url, patients_spec("clinic"))
    assert len(choose(dataset, Asked(groups=("patient-7",), sources=("ward",)), SECRET).samples) == 0
    assert len(choose(dataset, Asked(groups=("patient-7",), sources=("clinic",)), SECRET).samples) == IMAGES


def test_nothing_that_matches_is_an_error(dataset: Dataset) -> None:
    with pytest.raises(SampleIndexError, match=r"nothing in .* matches"):
        withdraw(dataset, Asked(groups=("patient-99",)), SECRET)
    with pytest.raises(ConfigError, match="secret"):
        withdraw(dataset, Asked(groups=("patient-1",)), SecretStr("another"))


def test_later_jobs_reject_the_same_pixels_and_whatever_else_comes_of_the_patient(
    dataset: Dataset, raw: Path, tmp_path: Path
) -> None:
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    before = keys_of(dataset)
    assert take_in(raw, dataset.url).repeated
    # the same files and a new one of the patient, and the pixels of one under another name, twice
    more = {"patient-1/new.png": encoded(photo(900)), "patient-8/a.png": COPY, "patient-8/b.png": COPY}
    grown = write_patients(tmp_path / "grown", more={**more, "patient-8/c.png": encoded(photo(901))})
    report = take_in(grown, dataset.url)
    assert (report.kept, report.reasons) == (1, {"withdrawn": IMAGES + 3})
    assert keys_of(dataset) > before
    assert len(keys_of(dataset)) == len(before) + 1
    again = take_in(grown, str(tmp_path / "fresh"))
    assert again.kept == PATIENTS * IMAGES + 2, "another dataset has other tombstones"
    details = dataset.query("SELECT detail FROM rejects WHERE reason = 'withdrawn'")["detail"].to_pylist()
    assert set(details) == {""}


def test_a_copy_from_elsewhere_is_withdrawn_too_and_a_near_one_stays_without_the_name(tmp_path: Path) -> None:
    import numpy as np

    near = np.clip(photo(100).astype(int) + 1, 0, 255).astype(np.uint8)
    more = {"patient-9/same.png": COPY, "patient-9/near.png": encoded(near, "JPEG", quality=85)}
    raw = write_patients(tmp_path / "raw", more=more)
    take_in(raw, str(tmp_path / "d"))
    dataset = Dataset.open(str(tmp_path / "d"))
    reasons = dataset.query("SELECT reason, detail FROM rejects ORDER BY reason").to_pylist()
    assert [row["reason"] for row in reasons] == ["duplicate", "near_duplicate"]
    assert all(row["detail"] for row in reasons)
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    found = dataset.query("SELECT reason, detail FROM rejects ORDER BY reason").to_pylist()
    assert found == [{"reason": "near_duplicate", "detail": ""}, {"reason": "withdrawn", "detail": ""}]


def test_an_interrupted_withdrawal_is_completed_by_the_next_command(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.withdrawal import withdraw as module

    steps = ("remove_samples", "_clean_rejects", "_clean_raw_files", "remove_plan")
    for patient, step in enumerate(steps):
        with monkeypatch.context() as patch:

            def killed(*_args: object, **_more: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(module, step, killed)
            with pytest.raises(KeyboardInterrupt):
                withdraw(dataset, Asked(groups=(f"patient-{patient}",)), SECRET)
        assert len(list(open_plans(dataset))) == 1
        done = withdraw(dataset, Asked(groups=(f"patient-{patient}",)), SECRET)
        assert len(done.completed) == 1
        assert not done.repeated
        assert len(keys_of(dataset)) == (PATIENTS - 1 - patient) * IMAGES
        assert len(dataset.query("SELECT key FROM fingerprints")) == (PATIENTS - 1 - patient) * IMAGES
        assert len(dataset.query("SELECT raw_path FROM raw_files")) == (PATIENTS - 1 - patient) * IMAGES
    assert not verify(dataset, deep=True).problems


def test_a_job_that_resolved_before_the_withdrawal_takes_its_samples_out_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.job import run

    more = {"patient-1/new.png": encoded(photo(900)), "patient-5/x.png": encoded(photo(901))}
    grown = write_patients(tmp_path / "grown", more=more)
    settle = run.settle

    def meanwhile(*args: object, **more: object) -> object:
        settled = settle(*args, **more)  # type: ignore[arg-type]
        withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
        return settled

    monkeypatch.setattr(run, "settle", meanwhile)
    take_in(grown, dataset.url)
    groups = dataset.query("SELECT DISTINCT raw_path FROM samples WHERE group_id = ?", params=["x"])
    assert not len(groups)
    assert len(keys_of(dataset)) == (PATIENTS - 1) * IMAGES + 1
    assert not verify(dataset, deep=True).problems


def test_a_copy_that_a_job_gave_up_after_its_commit_goes_from_its_shard(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ingest.job import run

    other = write_patients(tmp_path / "other", [6], more={"patient-6/copy.png": COPY})
    first = write_patients(tmp_path / "first", [1])
    url = str(tmp_path / "raced")
    settle = run.settle

    def meanwhile(*args: object, **more: object) -> object:
        monkeypatch.setattr(run, "settle", settle)
        settled = settle(*args, **more)  # type: ignore[arg-type]
        take_in(first, url)
        return settled

    monkeypatch.setattr(run, "settle", meanwhile)
    take_in(other, url, patients_spec("clinic"))
    raced = Dataset.open(url)
    assert raced.query("SELECT reason FROM rejects")["reason"].to_pylist() == ["duplicate"]
    done = withdraw(raced, Asked(groups=("patient-1",), sources=("ward",)), SECRET)
    assert done.num_samples == IMAGES + 1
    assert done.num_copies == 1
    assert len(members_of(raced)) == 2 * IMAGES
    assert not verify(raced, deep=True).problems


def test_own_columns_lose_their_rows(dataset: Dataset) -> None:
    import pyarrow as pa

    from shards.dataset.columns import column_table, write_columns

    keys = sorted(keys_of(dataset))
    write_columns(dataset, pa.table({"key": keys, "age": list(range(len(keys)))}), note={})
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    table = column_table(dataset)
    assert table is not None
    rows = table.to_pyarrow_table().to_pylist()
    assert {row["key"]: row["age"] for row in rows} == {
        key: age for age, key in enumerate(keys) if key in keys_of(dataset)
    }
    assert len(rows) == (PATIENTS - 1) * IMAGES


@pytest.mark.parametrize("raw_paths", ["keep", "hash"])
def test_archives_and_folders_in_them_are_raw_paths_too(tmp_path: Path, raw_paths: str) -> None:
    names = [f"patient-{number}/{image}.png" for number in (1, 2) for image in (0, 1)]
    for name, shift in (("a.zip", 0), ("b.zip", 500)):
        files = {path: encoded(photo(shift + number)) for number, path in enumerate(names)}
        write_folder(tmp_path / "raw", {name: zip_of(files)})
    take_in(tmp_path / "raw", str(tmp_path / "d"), raw_paths=raw_paths)
    dataset = Dataset.open(str(tmp_path / "d"))
    for stated, num in (("zip://patient-1/0.png::a.zip", 1), ("a.zip/patient-1", 1), ("./a.zip", 2), ("b.zip/", 4)):
        assert withdraw(dataset, Asked(raw_paths=(stated,)), SECRET).num_samples == num, stated
    assert not keys_of(dataset)
    assert not len(dataset.query("SELECT raw_path FROM raw_files"))
