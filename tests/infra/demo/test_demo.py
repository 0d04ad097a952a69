"""The demo, run as a user runs it: once, and again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from infra.cli import main
from tests.browser import open_page


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
@pytest.mark.browser
def test_the_demo_goes_the_whole_way_and_a_second_run_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["demo", "--out", str(tmp_path), "--steps", "60", "--json"]
    assert main([*arguments, "--workers", "2"]) == 0
    first = json.loads(capsys.readouterr().out)
    before = tree(tmp_path / "dataset")
    assert len(first["modalities"]) >= 6
    assert first["samples"] >= 300
    assert all(job["items"] == job["kept"] + job["rejected"] for job in first["jobs"])
    losses = [json.loads(line)["loss"] for line in (tmp_path / "mae" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])

    assert main([*arguments, "--workers", "1"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["version"] == first["version"]
    assert tree(tmp_path / "dataset") == before

    seen = open_page(tmp_path / "report.html")
    assert seen.errors == []
    assert seen.requests == []
    assert all(modality in seen.text for modality in first["modalities"])
    assert len(seen.picture_widths) >= len(first["modalities"]) + 1
    assert min(seen.picture_widths) > 0


@pytest.mark.slow
def test_one_worker_and_two_give_the_same_shards_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from infra.demo.gather import gather
    from infra.demo.steps import ingest_all
    from shards.dataset.dataset import Dataset

    gather(tmp_path / "raw")
    rows = []
    for workers in (1, 2):
        folder = tmp_path / f"workers-{workers}"
        ingest_all(tmp_path / "raw", str(folder), workers=workers)
        table = Dataset.open(str(folder)).table("index")
        assert table is not None
        rows.append(table.to_pyarrow_table().sort_by("key").to_pylist())
    capsys.readouterr()
    assert tree(tmp_path / "workers-1" / "shards") == tree(tmp_path / "workers-2" / "shards")
    assert json.dumps(rows[0]) == json.dumps(rows[1])
