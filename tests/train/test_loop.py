"""The loop where figures are read late, as on a GPU, and steps that change nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shards.errors import TrainingError
from tests.train.recipes import dino_recipe, mae_recipe
from tests.train.streams import MemoryStream
from tests.train.test_pretrain import RECIPES, StopAt, lines, run, strip
from train.distributed import World, distribute
from train.loop import Loop
from train.methods import build_method
from train.methods.base import Method
from train.optim import build_optimizer
from train.recipe import Recipe
from train.run import StepReport
from train.schedules import schedule

pytestmark = pytest.mark.torch


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.loop.LATE_STEPS", {"cpu": 2})


def test_figures_read_late_are_those_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dino_recipe(run={"steps": 9}, checkpoint={"every": 4}, watch={"monitor_every": 3})
    called: dict[str, list[int]] = {"at once": [], "late": []}
    for name, steps in (("at once", 0), ("late", 2)):
        monkeypatch.setattr("train.loop.LATE_STEPS", {"cpu": steps})

        def monitor(_: nn.Module, *, step: int, name: str = name) -> Mapping[str, float]:
            called[name].append(step)
            return {"knn": 0.5}

        run(recipe, tmp_path / name, monitor=monitor)
    assert list(map(strip, lines(tmp_path / "late"))) == list(map(strip, lines(tmp_path / "at once")))
    assert called["late"] == called["at once"] == [3, 6, 9]


@RECIPES
@pytest.mark.usefixtures("late")
def test_a_stop_that_is_read_late_saves_and_goes_on_bit_for_bit(make: Any, tmp_path: Path) -> None:
    recipe = make(run={"steps": 14}, checkpoint={"every": 100})
    run(recipe, tmp_path / "whole")
    stopped = run(recipe, tmp_path / "cut", stream=StopAt(6, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert (stopped.steps, stopped.finished) == (9, False)
    assert len(lines(tmp_path / "cut")) == 9
    assert run(recipe, tmp_path / "cut").resumed_from == 9
    assert list(map(strip, lines(tmp_path / "cut"))) == list(map(strip, lines(tmp_path / "whole")))


@pytest.mark.usefixtures("late")
def test_reports_of_all_steps_are_there_before_a_checkpoint(tmp_path: Path) -> None:
    def die() -> None:
        raise RuntimeError("killed")

    recipe = mae_recipe(run={"steps": 12}, checkpoint={"every": 5})
    run(recipe, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="killed"):
        run(recipe, tmp_path / "cut", stream=StopAt(6, die))
    assert [line["step"] for line in lines(tmp_path / "cut")] == [1, 2, 3, 4, 5]
    assert run(recipe, tmp_path / "cut").resumed_from == 5
    assert list(map(strip, lines(tmp_path / "cut"))) == list(map(strip, lines(tmp_path / "whole")))


@pytest.mark.usefixtures("late")
def test_non_finite_steps_stop_the_run_though_they_are_seen_late(tmp_path: Path) -> None:
    seen: list[StepReport] = []
    recipe = mae_recipe(optim={"base_lr": 1e30, "warmup": 0.0}, watch={"non_finite_patience": 2})
    with pytest.raises(TrainingError, match="not finite for 2 steps in a row"):
        run(recipe, tmp_path, progress=seen.append)
    assert seen[-1].skipped


def loop(recipe: Recipe) -> Loop:
    world = World(0, 1, torch.device("cpu"))
    method = build_method(recipe)
    network = distribute(method, recipe, world, kernels="torch")
    return Loop(
        recipe=recipe,
        world=world,
        method=method,
        network=network,
        optimizer=build_optimizer(method.network, method.multipliers, recipe.optim),
        stream=MemoryStream(recipe, "memory", 0, 1),
        checkpoints=None,  # type: ignore[arg-type]  # nothing is saved
    )


def state(training: Loop) -> dict[str, torch.Tensor]:
    out = {name: value.clone() for name, value in training.method.state_dict().items()}
    for number, values in enumerate(training.optimizer.state.values()):
        out |= {f"{number} {name}": value.clone() for name, value in values.items()}
    return out


@pytest.mark.parametrize("recipe", [mae_recipe(), dino_recipe()], ids=["mae", "dinov2"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(recipe: Recipe, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    training = loop(recipe)
    views = next(iter(training.stream)).views
    training.submit(views, schedule(recipe, 3), {"stop": 0.0})
    before = state(training)
    original: Any = type(training.method).losses

    def spoiled(self: Method, *arguments: Any) -> Any:
        losses = original(self, *arguments)
        return type(losses)(total=losses.total * bad, parts=losses.parts, watched=losses.watched)

    monkeypatch.setattr(type(training.method), "losses", spoiled)
    training.submit(views, schedule(recipe, 4), {"stop": 0.0})
    after = state(training)
    moved = [name for name, value in before.items() if not torch.equal(value, after[name])]
    assert set(moved) <= {"dino_targets.center", "ibot_targets.center"}  # they move with every batch
    monkeypatch.undo()
    training.submit(views, schedule(recipe, 5), {"stop": 0.0})
    assert not torch.equal(state(training)["0 exp_avg"], after["0 exp_avg"])
