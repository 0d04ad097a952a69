"""What was withdrawn does not come back by a copy, a rebuild, a remap, or another job."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli import main
from ingest.job.run import run_job
from ingest.rebuild import rebuild
from ingest.settings import IngestSettings
from ingest.withdrawal.choose import Asked
from ingest.withdrawal.withdraw import withdraw
from shards.dataset.dataset import Dataset
from shards.errors import SampleIndexError, SubsetError
from shards.subset.canonical import materialize
from shards.subset.lock import Lock, Selection, create
from shards.subset.relock import relock
from tests.ingest.withdrawal.material import IMAGES, PATIENTS, SECRET, patients_spec, take_in, write_patients

pytestmark = pytest.mark.slow
NUM_LEFT = (PATIENTS - 1) * IMAGES


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_patients(tmp_path / "raw")


@pytest.fixture
def dataset(raw: Path, tmp_path: Path) -> Dataset:
    take_in(raw, str(tmp_path / "d"))
    return Dataset.open(str(tmp_path / "d"))


@pytest.fixture
def old(dataset: Dataset) -> Lock:
    """A lock of an older version, in which everything is still there."""
    lock = create(dataset, Selection())
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
    return lock


def test_a_copy_of_an_older_version_is_refused_and_one_of_the_rest_is_made(
    old: Lock, dataset: Dataset, tmp_path: Path
) -> None:
    with pytest.raises(SubsetError, match=f"{IMAGES} of the {PATIENTS * IMAGES} locked samples were withdrawn"):
        materialize(old, str(tmp_path / "copy"))
    assert materialize(relock(old, dataset), str(tmp_path / "copy")).version() == 0


def test_a_copy_into_a_dataset_that_they_were_withdrawn_from_is_refused(
    raw: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(tmp_path / "other")
    take_in(raw, other)
    lock = create(dataset, Selection())
    withdraw(Dataset.open(other), Asked(groups=("patient-1",)), SECRET)
    with pytest.raises(SubsetError, match="nothing tells here which"):
        materialize(lock, other)
    lock.write(tmp_path / "of.lock.yaml")
    monkeypatch.setenv("BIOVFM_SECRET", SECRET.get_secret_value())
    assert main(["subset", "materialize", str(tmp_path / "of.lock.yaml"), other]) == 1
    assert f"{IMAGES} of the locked samples were withdrawn from {other}" in capsys.readouterr().err
    assert len(Dataset.open(other).query("SELECT key FROM samples")) == NUM_LEFT


def test_a_rebuild_is_refused(old: Lock, raw: Path, tmp_path: Path) -> None:
    with pytest.raises(SubsetError, match="were withdrawn from"):
        rebuild(old, {"ward": str(raw)}, str(tmp_path / "again"), workers=0, secret=SECRET)


def test_a_rebuild_is_refused_where_the_dataset_was_moved(
    old: Lock, dataset: Dataset, raw: Path, tmp_path: Path
) -> None:
    moved = Path(dataset.url).rename(tmp_path / "moved")
    with pytest.raises(SubsetError, match="were withdrawn from"):
        rebuild(old, {"ward": str(raw)}, str(tmp_path / "again"), dataset=str(moved), workers=0, secret=SECRET)
    with pytest.raises(SampleIndexError, match="no dataset at"):
        rebuild(old, {"ward": str(raw)}, str(tmp_path / "again"), dataset=dataset.url, workers=0, secret=SECRET)


def test_a_remap_heeds_the_tombstones_of_the_old_dataset(
    old: Lock, dataset: Dataset, raw: Path, tmp_path: Path
) -> None:
    assert old.num_samples == PATIENTS * IMAGES
    settings = IngestSettings(secret=SECRET)
    new = str(tmp_path / "new")
    for _ in range(2):
        report = run_job(patients_spec(), str(raw), new, workers=0, settings=settings, remapped=dataset.url)
        assert (report.kept, report.reasons) == (NUM_LEFT, {"withdrawn": IMAGES})
