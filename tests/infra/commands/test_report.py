"""`biovfm report`: what is wrong with its arguments is one line, before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import main
from tests.shards.builders import small_dataset


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    small_dataset(str(tmp_path / "data"))
    return str(tmp_path / "data")


def empty(folder: Path) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text("")
    return folder


def test_a_run_that_is_none_fails(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, said in (
        (tmp_path / "nowhere", "there is no run folder"),
        (tmp_path / "data", "holds no training run"),
        (empty(tmp_path / "empty"), "holds no training run"),
    ):
        out = tmp_path / "report.html"
        assert main(["report", dataset, "--run", str(run), "--out", str(out)]) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert not out.exists()


def test_an_out_that_cannot_be_written_is_one_line(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["report", dataset, "--out", str(tmp_path / "file" / "report.html")]) == 2
    assert "pass another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_the_answer_is_on_standard_output(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert main(["report", dataset, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert main(["report", dataset, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(out), "bytes": out.stat().st_size}


def test_probes_stand_beside_published_figures(
    dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Path(__file__).parents[2] / "frozen" / "data" / "results.jsonl"
    out = tmp_path / "report.html"
    assert main(["report", dataset, "--results", str(results), "--out", str(out)]) == 0
    page = out.read_text()
    assert "published, other protocol" in page
    assert "Doerrich et al." in page
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n")
    assert main(["report", dataset, "--results", str(broken), "--out", str(out)]) == 2
    assert "is no probe result" in capsys.readouterr().err


@pytest.mark.slow
def test_a_lock_whose_dataset_was_moved_is_described(dataset: str, tmp_path: Path) -> None:
    lock, out, moved = tmp_path / "ct.lock.yaml", tmp_path / "report.html", tmp_path / "elsewhere"
    assert main(["subset", "create", dataset, "--modality", "CT", "--out", str(lock)]) == 0
    text = lock.read_text()
    Path(dataset).rename(moved)
    assert main(["report", str(lock), "--out", str(out)]) == 1
    assert main(["report", str(lock), "--dataset", str(moved), "--out", str(out)]) == 0
    page = out.read_text()
    assert f"in {moved}, version 2" in page
    assert "the pinned one" in page
    assert main(["report", str(moved), "--lock", str(lock), "--out", str(out)]) == 0
    assert lock.read_text() == text
