"""`biovfm subset`: mistakes that are told before the work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.cli import main
from tests.shards.builders import small_dataset

pytestmark = pytest.mark.slow


@pytest.fixture
def lock(tmp_path: Path) -> str:
    small_dataset(tmp_path / "data")
    path = str(tmp_path / "a.lock.yaml")
    assert main(["subset", "create", str(tmp_path / "data"), "--modality", "CT", "--out", path]) == 0
    return path


def test_a_file_that_cannot_be_written_is_told_before_the_work(
    lock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    url, there = str(tmp_path / "data"), str(tmp_path / "file" / "x")
    for words in (
        ["create", url, "--out", there],
        ["materialize", lock, str(tmp_path / "copy"), "--lock-out", there],
        ["export", lock, "--out", there],
        ["diff", lock, url, "--keys", there],
    ):
        capsys.readouterr()
        assert main(["subset", *words]) == 2
        assert f"cannot write {there}" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


def test_a_negative_number_of_workers_is_refused(lock: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subset", "materialize", lock, str(tmp_path / "copy"), "--workers=-5"]) == 2
    assert "-5 workers" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()
