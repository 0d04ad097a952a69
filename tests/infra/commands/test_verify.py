"""`biovfm verify`: what it advises."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from infra.cli import main
from shards.dataset.dataset import Dataset
from shards.schema import index_schema, raw_files_schema, rejects_schema
from tests.shards.builders import small_dataset


def add_empty_job(dataset: Dataset, job_id: str, *, state: str, items: int) -> None:
    row = {"source": "delta", "raw_path": "a.png", "size": 1, "stamp": "", "state": state, "rules": "r"}
    dataset.commit(
        job_id=job_id,
        rows=index_schema().empty_table(),
        rejects=rejects_schema().empty_table(),
        raw_files=pa.Table.from_pylist([row | {"job_id": job_id}], schema=raw_files_schema()),
        summary={"source": "delta", "items": items, "kept": {}, "rejected": 0},
    )


@pytest.mark.slow
def test_a_job_that_took_files_as_known_without_their_images_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = small_dataset(tmp_path / "d")
    add_empty_job(dataset, "waits", state="pending", items=0)
    add_empty_job(dataset, "rejects", state="read", items=1)
    assert main(["verify", dataset.url]) == 0
    capsys.readouterr()
    add_empty_job(dataset, "lost", state="read", items=0)
    assert main(["verify", dataset.url]) == 1
    text = capsys.readouterr().out
    assert "job lost holds 1 raw files of delta as read and none of their images" in text
    assert "--remap NEW_DATASET" in text
    assert "from a copy" not in text
    next((tmp_path / "d" / "shards").rglob("*.tar")).unlink()
    assert main(["verify", dataset.url]) == 1
    assert "1 problem: bring these objects back from a copy" in capsys.readouterr().out


@pytest.mark.slow
def test_an_index_whose_newest_version_is_gone_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = small_dataset(tmp_path / "d")
    add_empty_job(dataset, "last", state="read", items=1)
    assert main(["verify", dataset.url]) == 0
    assert "last" not in capsys.readouterr().out
    max((tmp_path / "d" / "index" / "_delta_log").glob("*.json")).unlink()
    assert main(["verify", dataset.url]) == 0
    text = capsys.readouterr().out
    assert "1 job noted raw files and left no samples (last)" in text
    assert "the newest version of the index is gone" in text
