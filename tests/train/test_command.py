"""`biovfm pretrain` and `biovfm export` as a user calls them, on the real stream; also killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from infra.cli import main
from shards.dataset.dataset import Dataset
from tests.shards.builders import add_source, jpeg
from tests.train.recipes import mae_recipe

STEPS = 200


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "dataset"
    dataset = Dataset.create(str(folder))
    add_source(dataset, "demo", "US", [jpeg(number) for number in range(60)])
    return str(folder)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "nano.yaml"
    path.write_text(mae_recipe(run={"steps": STEPS}, checkpoint={"every": 40}).to_yaml())
    return path


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "infra.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def lines(out: Path) -> list[dict[str, Any]]:
    path = out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def exact(out: Path) -> list[tuple[int, int, float, float]]:
    return [(line["step"], line["keys_checksum"], line["loss"], line["grad_norm_encoder"]) for line in lines(out)]


@pytest.mark.slow
def test_killed_at_100_of_200_steps_and_resumed_bit_for_bit(dataset: str, recipe: Path, tmp_path: Path) -> None:
    whole = start("pretrain", dataset, "--recipe", recipe, "--out", tmp_path / "whole", "--json")
    code, out, err = finish(whole)
    assert code == 0, err
    assert json.loads(out)["finished"] is True

    killed = start("pretrain", dataset, "--recipe", recipe, "--out", tmp_path / "cut")
    deadline = time.monotonic() + 120
    while sum(1 for _ in lines_so_far(tmp_path / "cut")) < 100:
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL

    code, out, err = finish(start("pretrain", dataset, "--recipe", recipe, "--out", tmp_path / "cut", "--json"))
    assert code == 0, err
    assert json.loads(out)["resumed_from"] >= 40
    assert exact(tmp_path / "cut") == exact(tmp_path / "whole")
    assert len(exact(tmp_path / "whole")) == STEPS


def lines_so_far(out: Path) -> list[str]:
    path = out / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_sigterm_and_ctrl_c_save(
    number: signal.Signals, exit_code: int, dataset: str, recipe: Path, tmp_path: Path
) -> None:
    running = start("pretrain", dataset, "--recipe", recipe, "--out", tmp_path, "--set", "run.steps=100000", "--json")
    deadline = time.monotonic() + 120
    while len(lines_so_far(tmp_path)) < 5:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(number)
    code, out, err = finish(running)
    assert code == exit_code, err
    result = json.loads(out)
    assert (result["finished"], result["interrupted"]) == (False, number == signal.SIGINT)
    assert (tmp_path / "checkpoints" / f"step-{result['steps']:08d}" / "meta.json").is_file()

    code, out, err = finish(start("export", tmp_path, "--json"))
    assert code == 0, err
    assert (Path(json.loads(out)["export"]) / "model.safetensors").is_file()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "run.stepz=3"], "unknown key 'run.stepz', did you mean 'steps'?"),
        (["--set", "run.global_batch=9"], "run.global_batch 9 does not divide into 1 ranks"),
        (["--set", "steps"], "expected key=value"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    dataset: str,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["pretrain", dataset, "--recipe", str(recipe), "--out", str(tmp_path / "run"), *arguments]
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.torch
def test_a_dataset_that_grew_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = Dataset.create(str(tmp_path / "dataset"))
    add_source(dataset, "demo", "US", [jpeg(number) for number in range(20)])
    recipe = tmp_path / "nano.yaml"
    recipe.write_text(mae_recipe(run={"steps": 2}).to_yaml())
    command = ["pretrain", dataset.url, "--recipe", str(recipe), "--out", str(tmp_path / "run"), "--json"]
    assert main(command) == 0
    capsys.readouterr()

    add_source(dataset, "more", "US", [jpeg(number) for number in range(20, 30)])
    assert main([*command, "--set", "run.steps=4"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "is not what this run was trained on" in err.splitlines()[-1]
    assert "the checkpoint at step 2" in err.splitlines()[-1]


@pytest.mark.torch
@pytest.mark.slow
def test_a_run_goes_on_with_another_packing_where_that_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [jpeg(number) for number in range(20)]
    for name, per_shard in (("one", 8), ("two", 12)):
        add_source(Dataset.create(str(tmp_path / name)), "demo", "US", images, per_shard=per_shard)
    lock, recipe = str(tmp_path / "all.lock.yaml"), tmp_path / "nano.yaml"
    recipe.write_text(mae_recipe(run={"steps": 2, "global_batch": 4}, checkpoint={"every": 1}).to_yaml())
    words = ["pretrain", lock, "--recipe", str(recipe), "--out", str(tmp_path / "run")]
    assert main(["subset", "create", str(tmp_path / "one"), "--out", lock]) == 0
    assert main(words) == 0
    elsewhere = [*words, "--set", "run.steps=4", "--dataset", str(tmp_path / "two")]
    capsys.readouterr()
    assert main(elsewhere) == 1
    assert "accept that with --accept-packing" in capsys.readouterr().err
    assert main([*elsewhere, "--accept-packing", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["resumed_from"] == 2
    assert "made on another packing of the same samples" in " ".join(told.err.split())
