"""Sweeps under a real SLURM and on a real Ray; each is skipped where there is none."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from infra.cli import main
from tests.eval.builders import write_archive
from tests.shards.builders import small_dataset
from tests.train.recipes import mae_recipe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

ROOT = Path(__file__).parents[3]


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Two runs of a network for tests, on one CPU each."""
    small_dataset(str(tmp_path / "dataset"))
    (tmp_path / "mae.yaml").write_text(mae_recipe().to_yaml())
    write_archive(tmp_path / "medmnist", "breastmnist")
    document = {
        "dataset": str(tmp_path / "dataset"),
        "recipes": [str(tmp_path / "mae.yaml")],
        "seeds": [0, 1],
        "set": {"run.steps": 2},
        "probe": {"tasks": "breast", "data": str(tmp_path / "medmnist"), "image_size": 32, "resamples": 20},
        "slurm": {"gpus": 0, "cpus": 1, "time": "00:10:00"},
    }
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def seeds_in(results: Path) -> set[str]:
    with results.open(newline="") as lines:
        return {row["seed"] for row in csv.DictReader(lines)}


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


def test_a_local_ray_fills_the_table(grid: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "infra.cli", "sweep", str(grid), "--out", "out", "--ray", "local"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert seeds_in(out / "results.csv") == {"0", "1"}
    again = subprocess.run([*command, "--json"], cwd=tmp_path, env=environment(), capture_output=True, check=False)
    assert again.returncode == 0


def test_a_run_that_fits_no_node_is_an_error(grid: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ray = pytest.importorskip("ray")
    document = yaml.safe_load(grid.read_text())
    grid.write_text(yaml.safe_dump({**document, "slurm": {"gpus": 0, "cpus": 4096}}))
    try:
        assert main(["sweep", str(grid), "--out", str(tmp_path / "out"), "--ray", "local"]) == 2
    finally:
        ray.shutdown()
    assert "no node has the 4096 CPUs" in capsys.readouterr().err


def environment() -> dict[str, str]:
    """This process's, with the project importable from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}
