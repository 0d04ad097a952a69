"""The report in a real browser, and its charts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.cli import main
from infra.web.charts import line_chart, smooth, ticks
from tests.browser import open_page
from tests.shards.builders import small_dataset


@pytest.mark.browser
def test_the_report_opens_without_an_error_and_shows_every_modality(tmp_path: Path) -> None:
    dataset = small_dataset(tmp_path / "data")
    run = tmp_path / "run"
    run.mkdir()
    lines = [
        {"step": step, "loss": 1 / step, "lr": 1e-3, "images_per_second": 100.0, "stall_share": 0.01}
        for step in range(1, 50)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lock, page = tmp_path / "us.lock.yaml", tmp_path / "report.html"
    assert main(["subset", "create", dataset.url, "--modality", "US", "--out", str(lock)]) == 0
    assert main(["report", dataset.url, "--run", str(run), "--lock", str(lock), "--out", str(page)]) == 0
    seen = open_page(page)
    assert seen.errors == []
    assert seen.requests == []
    for word in ("CT", "US", "Fundus", "60", "Pinned subset", "Loss"):
        assert word in seen.text
    assert len(seen.picture_widths) == 3
    assert min(seen.picture_widths) > 90


def test_names_are_escaped(tmp_path: Path) -> None:
    from infra.web.html import render_cards, render_table

    assert "<b>x" not in render_table(["<b>x"], [["<script>"]]).replace("<b>1", "")
    assert "<script>" not in render_table(["a"], [["<script>"]]) + render_cards([("<script>", "<script>")])


@pytest.mark.parametrize(("low", "high"), [(0, 300), (0.31, 0.97), (5, 5), (-3, 1e6), (1e-9, 2e-9), (0, 0)])
def test_ticks_span_the_range_with_few_round_numbers(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert 2 <= len(marks) <= 8
    assert marks[0] <= low + 1e-12
    assert marks[-1] >= high - 1e-12


def test_a_chart_without_points_says_so() -> None:
    assert "No points" in line_chart({"a": []}, x_label="x", y_label="y", title="t")
    assert "nan" not in line_chart({"a": [(0, float("nan")), (1, 2.0)]}, x_label="x", y_label="y", title="t")


def test_smoothing_keeps_constants() -> None:
    assert smooth([(x, 3.0) for x in range(40)]) == [(x, 3.0) for x in range(40)]
