"""A lock and the raw data are enough: the same samples, in the same canonical bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from ingest.job.run import run_job
from ingest.rebuild import rebuild
from ingest.settings import IngestSettings, QualitySettings
from ingest.source.spec import from_flags
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SubsetError
from shards.subset import Lock, Selection, create, materialize
from tests.ingest.material import encoded, photo, shard_bytes, write_folder


@pytest.fixture
def original(tmp_path: Path) -> Lock:
    """A lock of two sources; the second one's copy of a picture of the first was rejected."""
    write_folder(tmp_path / "raw" / "eye", {f"p{n // 3}/{n}.png": encoded(photo(n)) for n in range(8)})
    write_folder(tmp_path / "raw" / "lung", {f"{n}.png": encoded(photo(n)) for n in range(7, 14)})
    settings = IngestSettings(secret=SecretStr("the owner's"), unit_files=3, quality=QualitySettings(min_side_px=40))
    for name, modality in (("lung", "X-Ray"), ("eye", "Fundus")):
        spec = from_flags(name=name, modality=modality)
        run_job(spec, str(tmp_path / "raw" / name), str(tmp_path / "data"), workers=0, settings=settings)
    create(Dataset.open(str(tmp_path / "data")), Selection(where="width > 64")).write(tmp_path / "a.lock.yaml")
    return Lock.read(tmp_path / "a.lock.yaml")


def raw_of(folder: Path) -> dict[str, str]:
    return {name: str(folder / "raw" / name) for name in ("eye", "lung")}


@pytest.mark.slow
def test_the_lock_carries_how_its_sources_were_ingested(original: Lock) -> None:
    assert list(original.sources) == ["lung", "eye"]
    assert original.sources["eye"]["spec"]["modality"] == ["Fundus"]
    assert original.sources["eye"]["settings"]["quality"] == {"min_side_px": 40}
    assert original.encoding["short_side_px"] == 512
    assert "owner" not in str(original)


@pytest.mark.slow
def test_raw_data_give_the_bytes_of_the_materialised_original(original: Lock, tmp_path: Path) -> None:
    materialize(original, str(tmp_path / "copy"))
    done = rebuild(original, raw_of(tmp_path), str(tmp_path / "again"), workers=0, secret=SecretStr("another"))
    assert shard_bytes(tmp_path / "again") == shard_bytes(tmp_path / "copy")
    assert [report.source for report in done.reports] == ["lung", "eye"]
    pinned = [create(Dataset.open(str(tmp_path / name)), Selection()) for name in ("copy", "again")]
    assert pinned[0].order == pinned[1].order
    assert pinned[1].sources == original.sources
    assert Dataset.open(str(tmp_path / "again")).settings["deidentification"]["method"]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 4])
def test_another_packing_secret_and_number_of_workers_give_the_same_bytes_and_order(
    original: Lock, tmp_path: Path, workers: int
) -> None:
    small = {"unit_files": 1, "shard_bytes": 20_000, "quality": QualitySettings(min_side_px=40)}
    settings = IngestSettings(secret=SecretStr("the second owner's"), **small)
    for name, modality in (("lung", "X-Ray"), ("eye", "Fundus")):
        spec = from_flags(name=name, modality=modality)
        run_job(spec, str(tmp_path / "raw" / name), str(tmp_path / "other"), workers=0, settings=settings)
    other = create(Dataset.open(str(tmp_path / "other")), Selection(where="width > 64"))
    assert (other.digest, other.order == original.order) == (original.digest, False)
    materialize(original, str(tmp_path / "copy"), workers=1)
    materialize(original, str(tmp_path / "copied"), dataset=str(tmp_path / "other"), workers=4)
    later = other.model_copy(update={"index_version": 7})  # of a dataset that has grown by then
    done = rebuild(later, raw_of(tmp_path), str(tmp_path / "again"), workers=workers, secret=SecretStr("a third one"))
    assert done.notes == ()
    orders = {create(Dataset.open(str(tmp_path / name)), Selection()).order for name in ("copy", "copied", "again")}
    assert len(orders) == 1
    assert shard_bytes(tmp_path / "copy") == shard_bytes(tmp_path / "copied") == shard_bytes(tmp_path / "again")


@pytest.mark.slow
def test_raw_data_that_changed_are_told_by_source(original: Lock, tmp_path: Path) -> None:
    (tmp_path / "raw" / "eye" / "p0" / "1.png").unlink()
    write_folder(tmp_path / "raw" / "lung", {"9.png": encoded(photo(99))})
    with pytest.raises(
        SubsetError, match=r"do not give the locked samples: eye Fundus: 1 missing \(6 of 7\)"
    ) as caught:
        rebuild(original, raw_of(tmp_path), str(tmp_path / "again"), workers=0)
    assert "lung X-Ray: changed (7 samples, but not the same)" in str(caught.value)
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_each_source_needs_its_raw_data(original: Lock, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no raw data given for lung.*--raw lung=FOLDER"):
        rebuild(original, {"eye": "x"}, str(tmp_path / "again"))
    with pytest.raises(ConfigError, match="no source brain"):
        rebuild(original, {**raw_of(tmp_path), "brain": "x"}, str(tmp_path / "again"))


@pytest.mark.slow
def test_a_lock_of_another_pipeline_is_refused(original: Lock, tmp_path: Path) -> None:
    other = original.model_copy(update={"pipeline_version": 1})
    with pytest.raises(ConfigError, match="version 1 of the ingest pipeline"):
        rebuild(other, raw_of(tmp_path), str(tmp_path / "again"))
