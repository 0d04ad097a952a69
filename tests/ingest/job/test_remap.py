"""A dataset of an earlier pipeline is ingested again, and its locks are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import main
from ingest.job.identity import PIPELINE_VERSION
from ingest.job.remap import fate_of, locks_of
from shards.dataset.dataset import Dataset
from shards.subset.lock import Selection, create
from tests.ingest.material import encoded, ingest, photo, write_folder


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A dataset of the version before, with a lock beside it and one of another dataset."""
    raw = write_folder(tmp_path / "raw", {f"{n}.png": encoded(photo(n)) for n in range(5)})
    for name in ("d", "other"):
        ingest(raw, tmp_path / name, quality={"min_side_px": 20}, secret="")
        create(Dataset.open(str(tmp_path / name)), Selection()).write(tmp_path / f"{name}.lock.yaml")
    (tmp_path / "broken.yaml").write_text("[")
    settings = json.loads((tmp_path / "d" / "dataset.json").read_text())
    settings |= {"pipeline_version": PIPELINE_VERSION - 1, "encoding": {**settings["encoding"], "jpeg_quality": 81}}
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(settings))
    return tmp_path / "d"


def words(old: Path, *more: str) -> list[str]:
    flags = ["--modality", "Fundus", "--deidentified", "--workers", "0"]
    return ["ingest", "test", str(old.parent / "raw"), str(old), *flags, *more]


@pytest.mark.slow
def test_the_command_offers_a_remap_and_does_it(
    old: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(old.parent / "raw")
    assert main(words(old)) == 2
    assert "--remap NEW_DATASET" in capsys.readouterr().err
    write_folder(old.parent / "raw", {"0.png": encoded(photo(50))})
    (old.parent / "raw" / "1.png").unlink()
    before = sorted(old.rglob("*"))
    assert main(words(old, "--remap", str(old.parent / "new"))) == 0
    shown = capsys.readouterr()
    assert "4 items = 4 kept + 0 rejected" in " ".join(shown.out.split())
    line = "of its 5 samples the new one holds 3 with the same pixels, 1 with other pixels, and 1 not (yet)"
    assert shown.err.count(line) == 1
    assert "d.lock.yaml stays valid for the old dataset" in shown.err
    assert sorted(old.rglob("*")) == before
    made = json.loads((old.parent / "new" / "dataset.json").read_text())
    assert (made["pipeline_version"], made["encoding"]["jpeg_quality"]) == (PIPELINE_VERSION, 81)


@pytest.mark.slow
def test_only_locks_of_the_dataset_count(old: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(str(old))
    ((path, lock),) = locks_of(dataset, (tmp_path, tmp_path, tmp_path / "none"))
    assert path.name == "d.lock.yaml"
    fate = fate_of(path, lock, dataset, Dataset.open(str(tmp_path / "other")))
    assert (fate.samples, fate.same, fate.changed, fate.missing) == (5, 5, 0, 0)


@pytest.mark.slow
def test_without_locks_the_command_says_where_it_looked(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in old.parent.glob("*.lock.yaml"):
        path.unlink()
    assert main(words(old, "--remap", str(old.parent / "new"))) == 0
    assert "no lock of" in capsys.readouterr().err
