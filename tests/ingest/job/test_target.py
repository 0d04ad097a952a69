"""The dataset of a job: which policy and pipeline version it has, and what the first sample decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.job.identity import PIPELINE_VERSION
from ingest.job.target import open_target, require_apart
from ingest.picture.encoding import Encoding
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SampleIndexError, SourceError
from tests.ingest.material import encoded, ingest, photo, write_folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "raw", {f"{n}.png": encoded(photo(n)) for n in range(3)})


def settings_of(dataset: Path) -> dict[str, object]:
    return dict(json.loads((dataset / "dataset.json").read_text()))


def edit(dataset: Path, **changes: object) -> None:
    (dataset / "dataset.json").write_text(json.dumps(settings_of(dataset) | changes))


def test_a_new_dataset_records_the_pipeline_version(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    assert settings_of(tmp_path / "d")["pipeline_version"] == PIPELINE_VERSION
    assert settings_of(tmp_path / "d")["encoding"] == Encoding.of_new_dataset({}).model_dump()
    assert Dataset.open(str(tmp_path / "d")).jobs()[0]["pipeline_version"] == PIPELINE_VERSION


def test_the_raw_folder_itself_is_no_place_for_the_dataset(raw: Path) -> None:
    (raw.parent / "link").symlink_to(raw)
    with pytest.raises(ConfigError, match="is the folder of the raw data"):
        ingest(raw, raw.parent / "link")
    for one, two in (("s3://b/raw", "s3://b/raw/"), ("a/b", "a/./b/")):
        with pytest.raises(ConfigError, match="is the folder of the raw data"):
            require_apart(one, two)
    require_apart("s3://b/raw", "s3://b/raw/data")


def test_looking_at_a_dataset_that_is_not_there_makes_none(tmp_path: Path) -> None:
    target = open_target(str(tmp_path / "d"), {"short_side_px": 64})
    assert not (tmp_path / "d").exists()
    assert target.made().settings["encoding"]["short_side_px"] == 64


def test_a_first_ingest_that_finds_nothing_makes_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds none"):
        ingest(tmp_path / "empty", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_dataset_without_samples_takes_another_policy(raw: Path, tmp_path: Path) -> None:
    made = Dataset.create(str(tmp_path / "d"), encoding={"jpeg_quality": 80, "short_side_px": 64}, pipeline_version=1)
    assert made.is_empty()
    open_target(made.url, {"short_side_px": 32}).made()
    ingest(raw, tmp_path / "d")
    encoding = settings_of(tmp_path / "d")["encoding"]
    assert encoding == Encoding(jpeg_quality=80, short_side_px=32).model_dump()
    assert settings_of(tmp_path / "d")["pipeline_version"] == PIPELINE_VERSION


def test_one_with_samples_keeps_its_own(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    with pytest.raises(ConfigError, match="is encoded with short_side_px=512, not short_side_px=64"):
        open_target(str(tmp_path / "d"), {"short_side_px": 64})
    with pytest.raises(SampleIndexError, match="holds samples"):
        Dataset.open(str(tmp_path / "d")).recreate(encoding={}, pipeline_version=1)


def test_a_dataset_of_a_later_pipeline_wants_its_release(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "d")
    edit(tmp_path / "d", pipeline_version=PIPELINE_VERSION + 1)
    write_folder(raw, {"new.png": encoded(photo(9))})
    with pytest.raises(ConfigError, match="use the release that made the dataset"):
        ingest(raw, tmp_path / "d")


def test_a_policy_that_changed_under_a_job_is_found(raw: Path, tmp_path: Path) -> None:
    target = open_target(str(tmp_path / "d"))
    Dataset.create(str(tmp_path / "d"), encoding={"jpeg_quality": 50}, pipeline_version=PIPELINE_VERSION)
    ingest(raw, tmp_path / "d")
    with pytest.raises(ConfigError, match="another encoding policy"):
        target.check(Dataset.open(str(tmp_path / "d")))


@pytest.mark.slow
def test_new_datasets_get_the_native_resampler_and_older_ones_keep_theirs(raw: Path, tmp_path: Path) -> None:
    ingest(raw, tmp_path / "new")
    assert settings_of(tmp_path / "new")["encoding"]["resampler"] == "native"
    Dataset.create(str(tmp_path / "old"), encoding={"jpeg_quality": 90}, pipeline_version=PIPELINE_VERSION)
    ingest(raw, tmp_path / "old")
    assert Encoding.of_dataset(settings_of(tmp_path / "old")).resampler == "pillow"
