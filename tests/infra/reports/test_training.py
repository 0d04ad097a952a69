"""A run's section of the report: curves of whatever the method minimises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.reports.training import training_section


def write_run(folder: Path, **values: float) -> Path:
    folder.mkdir()
    common: dict[str, Any] = {"lr": 1e-3, "images_per_second": 100.0, "stall_share": 0.01, "seconds": 6.0}
    lines = [{"step": step, "loss": 2 / step, **common, **values} for step in range(1, 41)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_loss_of_several_parts_shows_each_and_the_spread(tmp_path: Path) -> None:
    page = training_section(write_run(tmp_path / "run", loss_dino_local=1.0, loss_ibot=0.5, feature_std=0.9))
    for expected in ("<b>4.0</b>", "DINO, local crops", ">iBOT<", "Its summands", "Spread of the CLS features"):
        assert expected in page


def test_a_loss_of_one_part_is_drawn_once(tmp_path: Path) -> None:
    page = training_section(write_run(tmp_path / "run", loss_mae=0.5))
    assert page.count("<svg") == 2
    assert "Its summands" not in page
    assert "Spread" not in page


def test_a_run_without_steps_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert training_section(None) == training_section(tmp_path) == training_section(tmp_path / "nowhere") == ""


def test_lines_that_are_no_steps_are_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = write_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("ab") as stream:
        stream.write(b'[1]\n{"step": 41, "loss": null, "lr": 0.1}\n{"step": 42, "lo')
    page = training_section(run)
    assert "<svg" in page
    assert [message.partition("metrics.jsonl:")[2].split()[0] for message in caplog.messages] == ["41", "43"]


def test_a_run_without_a_finite_loss_has_no_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": null, "lr": 0.1}\n')
    assert training_section(tmp_path) == ""
