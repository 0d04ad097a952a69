"""Compiling by parts; without the compiler's last stage, which takes minutes on a CPU: what is traced runs as it is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.recipes import dino_recipe, mae_recipe
from tests.train.streams import MemoryStream
from train.backbone import TrainBlock
from train.compiling import Compiled, Missing, find_missing, wants_compile
from train.distributed import World, distribute
from train.loop import Loop
from train.methods import build_method
from train.methods.dinov2 import DinoV2
from train.objectives.heads import PrototypeHead
from train.optim import build_optimizer
from train.recipe import Recipe, RunConfig
from train.recipe_files import load_recipe, recipe_names
from train.schedules import schedule

pytestmark = pytest.mark.torch

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("value", "device", "wanted"),
    [("auto", CUDA, True), ("auto", CPU, False), (True, CPU, True), (False, CUDA, False)],
)
def test_auto_compiles_on_cuda(value: Any, device: torch.device, wanted: bool) -> None:
    assert wants_compile(RunConfig(steps=1, global_batch=64, compile=value), device) is wanted


def test_shipped_recipes_of_full_size_compile_on_cuda() -> None:
    run = {name: load_recipe(name).run for name in recipe_names()}
    assert {name for name in run if wants_compile(run[name], CUDA)} == {name for name in run if "tiny" not in name}
    assert not any(wants_compile(one, CPU) for one in run.values())


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that programs are searched in."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX", "TORCH_INDUCTOR_INSTALL_GXX"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def program(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(sys.platform == "darwin", reason="Inductor takes clang++ there")
def test_a_cpu_needs_the_compiler_that_inductor_takes(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = find_missing(CPU)
    assert missing is not None
    assert missing.reason == "torch.compile needs a C++ compiler, and g++ is not found"
    assert "apt-get install g++" in missing.remedy
    for name in ("gcc", "clang++"):
        program(bare / name)
    assert find_missing(CPU) is not None
    monkeypatch.setenv("TORCH_INDUCTOR_INSTALL_GXX", "1")
    assert find_missing(CPU) is None
    monkeypatch.delenv("TORCH_INDUCTOR_INSTALL_GXX")
    program(bare / "g++")
    assert find_missing(CPU) is None


@pytest.mark.usefixtures("bare")
def test_a_variable_names_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.compiling.util.find_spec", lambda _: object())
    for device, variable, usual in ((CPU, "CXX", "g++"), (CUDA, "CC", "gcc")):
        program(tmp_path / usual)
        for wrong in ("nowhere", "", "'"):
            monkeypatch.setenv(variable, wrong)
            missing = find_missing(device)
            assert missing is not None
            assert f"{variable}={wrong} is not found" in missing.reason
        monkeypatch.setenv(variable, program(tmp_path / "other"))
        assert find_missing(device) is None
    monkeypatch.setenv("CXX", f"{tmp_path / 'other'} g++")
    assert find_missing(CPU) is None


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_a_gpu_needs_triton_and_the_compiler_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("train.compiling.util.find_spec", lambda _: None)
    assert find_missing(CUDA) == Missing(reason="torch.compile needs Triton on a GPU", remedy="pip install triton")
    monkeypatch.setattr("train.compiling.util.find_spec", lambda _: object())
    missing = find_missing(CUDA)
    assert missing is not None
    assert missing.reason == "torch.compile needs a C compiler, and gcc or clang is not found"
    program(tmp_path / name)
    assert find_missing(CUDA) is None


@pytest.mark.usefixtures("bare")
def test_only_inductor_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.compiling.BACKEND", "aot_eager")
    assert find_missing(CPU) is None


def losses(recipe: Recipe, steps: int = 3) -> list[dict[str, float]]:
    world = World(0, 1, CPU)
    torch.manual_seed(0)
    method = build_method(recipe)
    loop = Loop(
        recipe=recipe,
        world=world,
        method=method,
        network=distribute(method, recipe, world, kernels="torch", compiles=wants_compile(recipe.run, CPU)),
        optimizer=build_optimizer(method.network, method.multipliers, recipe.optim),
        stream=MemoryStream(recipe, "memory", 0, 1),
        checkpoints=None,  # type: ignore[arg-type]  # nothing is saved
    )
    found = []
    for number, batch in zip(range(steps), loop.stream, strict=False):
        found.append(loop.submit(batch.views, schedule(recipe, number), {"stop": 0.0}).read())
        loop.step += 1
    return found


SETTINGS: dict[str, Any] = {
    "mae": (mae_recipe, {}),
    "dinov2": (dino_recipe, {"model": {"drop_path": 0.3}}),
    "dinov2-bf16": (dino_recipe, {"run": {"precision": "bf16"}}),
    "dinov2-checkpointed": (dino_recipe, {"run": {"checkpoint_activations": True}}),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the tracer looks at gradients of inner tensors, and torch warns of that
@pytest.mark.parametrize("name", SETTINGS)
def test_a_compiled_run_has_the_numbers_of_a_plain_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.compiling.BACKEND", "aot_eager")
    make, changes = SETTINGS[name]
    plain = losses(make(**changes))
    compiled = losses(make(**{**changes, "run": {**changes.get("run", {}), "compile": True}}))
    # CPUs multiply bf16, of 8 bits, in their own ways, and a target's information is a small difference of entropies.
    bounds = {"rel": 2e-2, "abs": 5e-4} if "bf16" in name else {"rel": 1e-4, "abs": 1e-4}
    for one, other in zip(plain, compiled, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert other[key] == pytest.approx(one[key], **bounds)


def test_blocks_heads_and_the_teachers_copy_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.compiling.BACKEND", "eager")
    recipe = dino_recipe(run={"compile": True, "precision": "bf16"})
    method = build_method(recipe)
    distribute(method, recipe, World(0, 1, CPU), kernels="torch", compiles=True)
    assert isinstance(method, DinoV2)
    for network in (method.network, method.teacher, method._teacher_to_call()):
        parts = [part for part in network.modules() if isinstance(part, TrainBlock | PrototypeHead)]
        assert len(parts) == 2 + 1
        assert all(part._compiled_call_impl is not None for part in parts)


def test_functions_are_left_alone_until_the_run_compiles() -> None:
    compiled = Compiled()
    assert compiled(len) is len


def test_attention_is_the_fused_one_where_timm_offers_it() -> None:
    method = build_method(mae_recipe())
    blocks = [part for part in method.modules() if isinstance(part, TrainBlock)]
    assert blocks
    assert all(block.attn.fused_attn for block in blocks)
