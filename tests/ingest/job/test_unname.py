"""A withdrawal in the middle of a job: what the job says of its rejects names nothing that is gone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ingest.job import run
from ingest.job.unname import unname
from ingest.withdrawal.choose import Asked
from ingest.withdrawal.purge import purge
from ingest.withdrawal.withdraw import withdraw
from shards.dataset.dataset import Dataset
from shards.schema import rejects_schema
from tests.ingest.material import encoded, photo
from tests.ingest.withdrawal.material import SECRET, group_of, identifiers_of, take_in, traces, write_patients

pytestmark = pytest.mark.slow
COPY = {"patient-9/same.png": encoded(photo(100))}


def rejects(dataset: Dataset) -> list[dict[str, Any]]:
    return dataset.query("SELECT reason, detail FROM rejects ORDER BY ALL").to_pylist()


@pytest.mark.parametrize("conceded", [True, False])
def test_a_copy_found_before_a_withdrawal_and_committed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, conceded: bool
) -> None:
    """Also where the job ends between its commit and what it has to clear up."""
    raw = write_patients(tmp_path / "raw", range(2))
    take_in(raw, str(tmp_path / "d"))
    dataset = Dataset.open(str(tmp_path / "d"))
    lost = identifiers_of(dataset, group_of(dataset, "patient-1"))
    commit = run.commit

    def commit_late(*arguments: Any, **more: Any) -> int:
        withdraw(dataset, Asked(groups=("patient-1",)), SECRET)
        return commit(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(run, "commit", commit_late)
        if not conceded:
            patch.setattr(run, "concede_withdrawn", lambda *_, **__: 0)
        assert take_in(write_patients(tmp_path / "raw", more=COPY), dataset.url).kept > 0
    if conceded:
        assert {"reason": "withdrawn", "detail": ""} in rejects(dataset)
        assert not any(row["reason"] == "duplicate" for row in rejects(dataset))
    else:
        assert any(row["reason"] == "duplicate" and row["detail"] for row in rejects(dataset))
    purge(dataset, SECRET, grace=timedelta(0))
    assert traces(dataset, lost) == []
    assert {"reason": "withdrawn", "detail": ""} in rejects(dataset)
    before = rejects(dataset)
    unname(dataset, ["withdraw-nothing"])
    assert rejects(dataset) == before


@pytest.mark.parametrize("place", ["disk", "store"])
def test_a_purge_that_ended_among_the_files_of_the_past_is_gone_on_with(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The log still tells of versions whose files are gone, and rejects hold words that may name what was withdrawn."""
    url = str(tmp_path / "d")
    if place == "store":
        url = f"{request.getfixturevalue('bucket')}/d"
    raw = write_patients(tmp_path / "raw", range(2))
    take_in(raw, url)
    dataset = Dataset.open(url)
    rows = dataset.query("SELECT source, modality, raw_path, raw_frame, job_id, key FROM samples LIMIT 1")
    words = pa.table({"reason": ["near_duplicate"], "detail": [f"of {rows['key'][0]}"]})
    names = rejects_schema().names
    row = pa.table({name: (words if name in words.column_names else rows)[name] for name in names})
    dataset.reject("seen-by-another", row.cast(rejects_schema()))
    lost = identifiers_of(dataset, group_of(dataset, "patient-1"))
    withdraw(dataset, Asked(groups=("patient-1",)), SECRET)

    def killed(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ingest.withdrawal.purge.forget_log", killed)
        with pytest.raises(KeyboardInterrupt):
            purge(dataset, SECRET, grace=timedelta(0))
    dataset = Dataset.open(url)
    purge(dataset, SECRET, grace=timedelta(0))
    assert traces(dataset, lost) == []
