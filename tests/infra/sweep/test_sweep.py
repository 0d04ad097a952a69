"""Sweeps: planning pins everything, a killed sweep goes on, schedulers get what they need."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.cli import main
from infra.sweep.grid import Grid, read_grid
from infra.sweep.launch import slurm_script
from infra.sweep.plan import count_weights, make_plan, read_plan
from infra.sweep.run import pretrain_arguments, probe_arguments
from shards.errors import ConfigError
from shards.subset.lock import Lock
from tests.eval.builders import write_archive
from tests.faults import wait_for
from tests.shards.builders import add_source, jpeg, small_dataset
from tests.train.recipes import dino_recipe, mae_recipe
from train.recipe_files import load_recipe

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, two small recipes and a MedMNIST archive."""
    folder = tmp_path_factory.mktemp("sweep")
    small_dataset(str(folder / "dataset"))
    (folder / "mae.yaml").write_text(mae_recipe().to_yaml())
    (folder / "dino.yaml").write_text(dino_recipe().to_yaml())
    write_archive(folder / "medmnist", "breastmnist")
    return folder


def write_grid(folder: Path, name: str = "grid.yaml", **changes: Any) -> Path:
    grid = {
        "dataset": str(folder / "dataset"),
        "recipes": [str(folder / "mae.yaml"), str(folder / "dino.yaml")],
        "fractions": [0.5, 1.0],
        "set": {"run.steps": 2},
        "probe": {"tasks": "breast", "data": str(folder / "medmnist"), "image_size": 32, "resamples": 20},
        **changes,
    }
    path = folder / name
    path.write_text(yaml.safe_dump(grid))
    return path


def test_planning_pins_locks_and_recipes(material: Path, tmp_path: Path) -> None:
    grid = read_grid(write_grid(material, models=["nano", "tiny"], seeds=[0, 1]))
    plan = make_plan(grid, tmp_path / "out")
    assert len(plan.runs) == 2 * 2 * 2 * 2
    assert len({run.id for run in plan.runs}) == 16
    for run in plan.runs:
        lock = Lock.read(plan.out / run.lock)
        assert (lock.digest, lock.num_samples) == (run.lock_digest, run.num_images)
        recipe = load_recipe(plan.out / run.recipe_file)
        assert (recipe.model.size, recipe.seed, recipe.run.steps) == (run.model, run.seed, 2)
        assert recipe.method.name == run.algorithm
        assert run.params_total > run.params_encoder > 0
    half, whole = (next(run for run in plan.runs if run.fraction == fraction) for fraction in (0.5, 1.0))
    assert half.num_images < whole.num_images
    assert read_plan(plan.out) == plan


def test_planning_again_changes_nothing_even_where_the_dataset_grew(material: Path, tmp_path: Path) -> None:
    from shards.dataset.dataset import Dataset

    shutil.copytree(material / "dataset", tmp_path / "dataset")
    path = write_grid(material, "growing.yaml", dataset=str(tmp_path / "dataset"), modalities=["all"])
    first = make_plan(read_grid(path), tmp_path / "out")
    add_source(Dataset.open(str(tmp_path / "dataset")), "later", "US", [jpeg(n) for n in range(900, 908)])
    again = make_plan(read_grid(path), tmp_path / "out")
    assert again == first
    more = make_plan(
        read_grid(write_grid(material, "more.yaml", dataset=str(tmp_path / "dataset"), fractions=[0.25, 0.5, 1.0])),
        tmp_path / "out",
    )
    assert {run.id for run in first.runs} < {run.id for run in more.runs}
    assert len({Lock.read(more.out / run.lock).index_version for run in more.runs}) == 1


def test_a_changed_setting_is_another_run(material: Path, tmp_path: Path) -> None:
    ids = []
    for changes in ({}, {"set": {"run.steps": 3}}, {"probe": {"tasks": "retina"}}, {"subset_seed": 1}):
        plan = make_plan(read_grid(write_grid(material, "changed.yaml", fractions=[0.5], **changes)), tmp_path / "out")
        ids.append({run.id for run in plan.runs})
    assert len(set.union(*ids)) == sum(map(len, ids))


def test_the_commands_of_a_run(material: Path, tmp_path: Path) -> None:
    plan = make_plan(read_grid(write_grid(material, fractions=[1.0])), tmp_path / "out")
    run = plan.runs[0]
    assert pretrain_arguments(plan, run)[:2] == ["pretrain", str(plan.out / run.lock)]
    words = probe_arguments(plan, run)
    assert words[words.index("--image-size") + 1] == "32"
    assert words[words.index("--data") + 1] == str(material / "medmnist")


def test_the_commands_of_a_sweep_whose_dataset_was_moved(material: Path, tmp_path: Path) -> None:
    shutil.copytree(material / "dataset", tmp_path / "dataset")
    grid = read_grid(write_grid(material, "moved.yaml", fractions=[1.0], dataset=str(tmp_path / "dataset")))
    first = make_plan(grid, tmp_path / "out")
    locks = {path: path.read_bytes() for path in (tmp_path / "out/locks").iterdir()}
    moved = tmp_path / "moved"
    Path(grid.dataset).rename(moved)
    plan = read_plan(tmp_path / "out", dataset=str(moved))
    run = plan.runs[0]
    assert pretrain_arguments(plan, run)[2:4] == ["--dataset", str(moved)]
    assert f"--dataset {moved}" in slurm_script(plan)
    again = make_plan(grid, tmp_path / "out", dataset=str(moved))
    assert [run.id for run in again.runs] == [run.id for run in first.runs]
    assert {path: path.read_bytes() for path in (tmp_path / "out/locks").iterdir()} == locks
    assert make_plan(grid, tmp_path / "other", dataset=str(moved)).runs[0].num_images == first.runs[0].num_images


def test_counted_weights_are_those_of_the_network() -> None:
    from train.methods import build_method

    for recipe in (mae_recipe(), dino_recipe()):
        method = build_method(recipe)
        total, encoder = count_weights(recipe)
        assert total == sum(w.numel() for w in method.network.parameters() if w.requires_grad)
        assert encoder == sum(w.numel() for w in method.export_backbone().parameters())


def test_a_slurm_array(material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slurm = {"partition": "gpu", "gpus": 4, "at_once": 2, "setup": ["module load cuda"], "options": {"account": "lab"}}
    grid = write_grid(material, "slurm.yaml", slurm=slurm)
    assert main(["sweep", str(grid), "--out", str(tmp_path / "my sweep"), "--slurm", "--json"]) == 0
    script = Path(json.loads(capsys.readouterr().out)["script"])
    text = script.read_text()
    for line in ("#SBATCH --array=0-3%2", "#SBATCH --partition=gpu", "#SBATCH --gpus-per-node=4", "--account=lab"):
        assert line in text
    assert text.index("module load cuda") < text.index("exec biovfm sweep --out")
    assert f"'{tmp_path}/my sweep' --only \"$SLURM_ARRAY_TASK_ID\"" in text
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    without = Grid(dataset="x", recipes=["tiny"], slurm={"gpus": 0})
    assert "gpus-per-node" not in slurm_script(
        type(read_plan(tmp_path / "my sweep"))(out=tmp_path, grid=without, runs=())
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": ["tiny"]}, "did you mean 'recipes'"),
        ({"fractions": [0.0]}, "fractions.0"),
        ({"modalities": [[]]}, "write `all`"),
        ({"recipes": []}, "recipes"),
        ({"probe": {"taks": "breast"}}, "did you mean 'tasks'"),
    ],
)
def test_wrong_grids_are_named(material: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_grid(write_grid(material, "wrong.yaml", **changes))


def test_mistakes_on_the_command_line(
    material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, out = str(write_grid(material)), str(tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path))
    cases = {
        "exclude one another": ["sweep", grid, "--out", out, "--plan", "--slurm"],
        "belongs to --slurm": ["sweep", grid, "--out", out, "--submit"],
        "there is no run 9": ["sweep", grid, "--out", out, "--only", "9"],
        "there is no sbatch here": ["sweep", grid, "--out", out, "--slurm", "--submit"],
        "plan it first": ["sweep", "--out", str(tmp_path / "none"), "--only", "0"],
    }
    for message, line in cases.items():
        assert main(line) == 2
        assert message in capsys.readouterr().err


def test_ray_that_is_not_there(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", str(write_grid(material)), "--out", str(tmp_path), "--ray", "auto"]) == 1
    assert "biovfm[ray]" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_scaling_reads_its_results(material: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    grid = write_grid(material, "real.yaml", recipes=[str(material / "mae.yaml")])
    command = [sys.executable, "-m", "infra.cli", "sweep", str(grid), "--out", str(out), "--json"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
        _wait_for_results(out, 1, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130, (tmp_path / "log").read_text()
    (first,) = out.glob("runs/*/result.json")
    before = first.read_bytes()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert len(summary["runs"]) == len(summary["finished"]) == 2
    assert first.read_bytes() == before
    assert "finished before" in done.stderr
    with (out / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["data_fraction"] for row in rows} == {"0.5", "1.0"}
    assert all(0 <= float(row["auc_lower"]) <= float(row["auc"]) <= float(row["auc_upper"]) <= 1 for row in rows)
    assert len({row["weights"] for row in rows}) == 2
    document = json.loads(first.read_text())
    assert document["results"][0]["provenance"]["trainer"]["samples_digest"] == document["run"]["lock_digest"]
    assert main(["scaling", str(out / "results.csv"), "--out", str(tmp_path / "report"), "--json"]) == 0
    assert (tmp_path / "report" / "figures" / "curves_data_fraction.svg").is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells a process that its parent has ended")
def test_what_a_run_has_started_ends_with_it_however_it_is_killed(tmp_path: Path) -> None:
    started = tmp_path / "started"
    child = f"import os, pathlib, time; pathlib.Path({str(started)!r}).write_text(str(os.getpid())); time.sleep(600)"
    program = f"""
import pathlib, sys
from infra.sweep.run import _child
_child([sys.executable, "-c", {child!r}], pathlib.Path({str(tmp_path / "log")!r}))
"""
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    wait_for(lambda: started.is_file() and started.read_text() != "", seconds=120)
    pid = int(started.read_text())
    assert Path(f"/proc/{pid}").exists()
    process.kill()
    process.wait()
    wait_for(lambda: has_ended(pid), seconds=60)


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or nobody has taken note of its end yet."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def _wait_for_results(out: Path, number: int, process: subprocess.Popen[bytes]) -> None:
    while len(list(out.glob("runs/*/result.json"))) < number:
        assert process.poll() is None, "the sweep ended before it was killed"
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_that_fails_is_named_and_the_others_go_on(material: Path, tmp_path: Path) -> None:
    grid = write_grid(material, "failing.yaml", fractions=[1.0], launcher=["false"])
    assert main(["sweep", str(grid), "--out", str(tmp_path), "--json"]) == 1
    assert len(list(tmp_path.glob("runs/*/pretrain.log"))) == 2
    assert not list(tmp_path.glob("runs/*/result.json"))
