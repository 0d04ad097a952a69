"""Runs start with the files of this package, whatever lies in the working folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from infra.sweep.run import launch_words

SCRIPT = str(Path(sys.executable).parent / "biovfm")


def test_torchrun_is_told_that_no_python_file_follows() -> None:
    assert launch_words([]) == [SCRIPT]
    ranks = ["torchrun", "--nproc-per-node", "8"]
    assert launch_words(ranks) == [*ranks, "--no-python", SCRIPT]
    told = ["/opt/bin/torchrun", "--no-python"]
    assert launch_words(told) == [*told, SCRIPT]
    assert launch_words(["srun", "-n", "2"]) == ["srun", "-n", "2", SCRIPT]


@pytest.mark.slow
def test_a_train_py_of_ones_own_is_not_taken_for_ours(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("raise SystemExit('the wrong train')\n")
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--nproc-per-node", "1"]
    for launcher in ([], torchrun):
        command = [*launch_words(launcher), "pretrain", "nowhere", "--recipe", "tiny", "--out", "run"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert "no dataset at" in done.stderr
        assert "the wrong train" not in done.stderr
