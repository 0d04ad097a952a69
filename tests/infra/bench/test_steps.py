"""Steps of two trees against each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.bench import steps
from infra.bench.steps import Times, compare, make_dataset, ratios_of

pytestmark = pytest.mark.torch


def test_a_ratio_above_one_is_a_faster_tree() -> None:
    before = [Times(step=seconds, computing=seconds - 0.5) for seconds in (2.0, 3.0, 2.0)]
    now = [Times(step=seconds, computing=seconds - 0.5) for seconds in (1.0, 1.0, 4.0)]
    figures = ratios_of(before, now)
    assert figures == {"ratio": 2.0, "ratio_computing": 3.0, "seconds_there": 2.0, "seconds_here": 1.0, "rounds": 3}


@pytest.mark.slow
@pytest.mark.process
def test_a_tree_against_itself_is_about_as_fast(tmp_path: Path) -> None:
    data = make_dataset(steps.ROOT, tmp_path)
    figures = compare("mae-tiny", steps.ROOT, data=data, rounds=1, steps=3)
    assert figures["rounds"] == 1
    assert 0.1 < figures["ratio_computing"] < 10


@pytest.mark.slow
@pytest.mark.process
def test_what_is_no_tree_is_said_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.bench.steps", "--against", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=steps.ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("steps: ")
    assert "is no tree of this project" in done.stderr
