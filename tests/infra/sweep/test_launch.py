"""Sweeps under a real SLURM and on a real Ray; each is skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from infra.cli import main
from infra.sweep.launch import execute_on_node
from shards.errors import RunFailedError
from tests.infra.sweep.grids import seeds_in, small_grid

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    return small_grid(tmp_path)


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ray's own folder; short, since the paths of sockets must be."""
    with TemporaryDirectory(prefix="bv-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # no token in anybody's home directory
        yield


def slurm_runs() -> bool:
    """Whether a SLURM controller answers here."""
    return (
        shutil.which("sinfo") is not None
        and subprocess.run(["sinfo"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not slurm_runs(), reason="no SLURM controller answers here")
def test_an_array_job_fills_the_table(grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # the script must find its own program
    assert main(["sweep", str(grid), "--out", str(out), "--slurm", "--submit"]) == 0
    until = time.monotonic() + 240
    while not ((out / "results.csv").is_file() and seeds_in(out / "results.csv") == {"0", "1"}):
        assert time.monotonic() < until, [path.read_text()[-2000:] for path in out.glob("slurm-*.log")]
        time.sleep(1)


@pytest.mark.usefixtures("ray_folder")
def test_a_local_ray_fills_the_table(grid: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "infra.cli", "sweep", str(grid), "--out", "out", "--ray", "local"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert seeds_in(out / "results.csv") == {"0", "1"}
    again = subprocess.run([*command, "--json"], cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert again.returncode == 0


@pytest.mark.usefixtures("ray_folder")
def test_a_run_that_fits_no_node_is_an_error(grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    document = yaml.safe_load(grid.read_text())
    grid.write_text(yaml.safe_dump({**document, "slurm": {"gpus": 0, "cpus": 4096}}))
    assert main(["sweep", str(grid), "--out", str(tmp_path / "out"), "--ray", "local"]) == 2
    assert "no node has the 4096 CPUs" in capsys.readouterr().err


def test_a_run_that_fails_is_told_and_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plan: Any = SimpleNamespace(is_finished=lambda _: False)
    for error, told in ((RunFailedError("no result", hint="see"), "no result"), (KeyError("x"), "KeyError: 'x'")):
        monkeypatch.setattr("infra.sweep.launch.execute", Mock(side_effect=error))
        beats: list[int] = []
        assert execute_on_node(plan, Mock(), beats.append, {}) == told
        assert beats == [0]
    assert "crashed" in execute_on_node(plan, Mock(), lambda _: None, {0: "crashed"})


def test_a_run_that_a_lost_worker_finished_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.sweep.launch.execute", Mock(side_effect=AssertionError))
    plan: Any = SimpleNamespace(is_finished=lambda _: True)
    assert execute_on_node(plan, Mock(), lambda _: None, {}) == ""


def environment() -> dict[str, str]:
    """This process's, with the project importable from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
