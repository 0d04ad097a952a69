"""Whether a secret belongs to a dataset is known before a job begins, and kept without the secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from ingest.job.run import run_job
from ingest.job.secret_check import judge_secret, keyed_jobs, needs_no_other, pin_secret, require_secret
from ingest.settings import IngestSettings
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SampleIndexError
from tests.ingest.material import encoded, ingest, photo, public_spec, write_folder
from tests.ingest.withdrawal.material import SECRET, patients_spec, take_in, write_patients

OTHER, NONE = SecretStr("another"), SecretStr("")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    take_in(write_patients(tmp_path / "raw", [1]), str(tmp_path / "d"))
    return Dataset.open(str(tmp_path / "d"))


@pytest.mark.slow
def test_the_check_value_tells_secrets_apart_and_gives_none_away(dataset: Dataset, tmp_path: Path) -> None:
    assert [judge_secret(dataset, secret) for secret in (SECRET, OTHER, NONE)] == ["belongs", "wrong", "missing"]
    text = dataset.store.read("secret.json").decode()
    assert SECRET.get_secret_value() not in text
    take_in(write_patients(tmp_path / "raw", [1]), str(tmp_path / "e"))
    assert Dataset.open(str(tmp_path / "e")).store.read("secret.json").decode() != text, "each dataset has its own salt"
    assert not needs_no_other(dataset.url)
    assert needs_no_other(str(tmp_path / "nowhere"))


@pytest.mark.slow
@pytest.mark.parametrize(("secret", "says"), [(OTHER, "the one here is another"), (NONE, "secret")])
def test_a_job_with_another_secret_is_refused_before_it_reads(
    dataset: Dataset, tmp_path: Path, secret: SecretStr, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        run_job(patients_spec(), str(tmp_path / "raw"), dataset.url, workers=0, settings=IngestSettings(secret=secret))
    with pytest.raises(ConfigError, match="biovfm secret explain"):
        require_secret(dataset, secret)


def test_public_sources_need_no_secret(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", {"a.png": encoded(photo(1))})
    ingest(raw, tmp_path / "d", public_spec())
    dataset = Dataset.open(str(tmp_path / "d"))
    assert judge_secret(dataset, NONE) == "unused"
    assert not list(keyed_jobs(dataset))
    require_secret(dataset, NONE)


@pytest.mark.slow
def test_the_rules_of_an_earlier_releases_jobs_tell_the_secret(dataset: Dataset) -> None:
    dataset.store.delete(["secret.json"])
    assert [judge_secret(dataset, secret) for secret in (SECRET, OTHER, NONE)] == ["belongs", "unknown", "missing"]
    pin_secret(dataset, OTHER)
    assert judge_secret(dataset, SECRET) == "belongs", "what is not known is not pinned"
    pin_secret(dataset, OTHER, for_tombstones=True)
    assert judge_secret(dataset, SECRET) == "wrong", "tombstones hang on the other one now"
    dataset.store.delete(["secret.json"])
    pin_secret(dataset, SECRET)
    assert judge_secret(dataset, OTHER) == "wrong"
    with pytest.raises(ConfigError):
        pin_secret(dataset, OTHER)


def test_a_damaged_check_value_is_one_line(dataset: Dataset) -> None:
    dataset.store.replace("secret.json", b"[]")
    with pytest.raises(SampleIndexError, match="damaged"):
        judge_secret(dataset, SECRET)
