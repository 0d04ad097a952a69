from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from infra.bench.decode import main, make_corpus
from shards.decode.header import ImageHeader, read_header
from tests.shards.decode.images import picture


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for seed in range(3):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), picture(300, 400, seed, sharpness=3))
    return tmp_path


@pytest.mark.slow
def test_corpus_is_reproducible_and_of_the_stated_sizes(pictures: Path) -> None:
    blobs = make_corpus([pictures], 12, seed=3)
    assert blobs == make_corpus([pictures], 12, seed=3)
    headers = [read_header(blob) for blob in blobs]
    assert all(
        isinstance(header, ImageHeader) and 224 <= max(header.width, header.height) <= 1024 for header in headers
    )


@pytest.mark.torch
def test_report_has_a_figure_for_every_contestant(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--images", str(pictures), "--count", "2", "--rounds", "1", "--only", "library", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {workload: set(row) for workload, row in report["cpu_ms"].items()} == {
        workload: {"library fast", "library exact"} for workload in "ABM"
    }


def test_no_pictures_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--images", str(tmp_path)]) == 2
    assert "--images" in capsys.readouterr().err
