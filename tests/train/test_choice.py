"""Where images are decoded, by which kernels, and whether is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from shards.decode.kernels.choice import Kernels
from shards.errors import ConfigError
from tests.train.recipes import mae_recipe
from tests.train.streams import MemoryStream
from train.choice import (
    DecodeFacts,
    KernelFacts,
    choose_compile,
    choose_decode,
    choose_kernels,
    common_compile,
    common_kernels,
    decide,
)
from train.compiling import Missing
from train.distributed import World
from train.recipe_files import load_recipe
from train.run import pretrain

pytestmark = pytest.mark.torch


def rank(device: str = "cuda", engine: str = "torchcodec", cores: int = 16) -> DecodeFacts:
    return DecodeFacts(device=device, engine=engine, cores=cores)


@pytest.mark.parametrize(
    ("facts", "chosen", "reason"),
    [
        ([rank()], "host", "16 cores"),
        ([rank(cores=4)], "device", "torchcodec, since 4 cores"),
        ([rank(cores=16), rank(cores=4)], "device", "4 cores"),
        ([rank(cores=4), rank(cores=4, engine="")], "host", "rank 1 has no library"),
        ([rank(cores=4), rank("cpu")], "host", "rank 1 trains on the CPU"),
        ([rank("cpu", cores=1)], "host", "training is on the CPU"),
    ],
)
def test_one_rule_for_all_ranks(facts: list[DecodeFacts], chosen: str, reason: str) -> None:
    answer, why = decide(facts)
    assert answer == chosen
    assert reason in why


CPU = torch.device("cpu")


def test_auto_is_replaced_and_said() -> None:
    recipe, line = choose_decode(mae_recipe(run={"decode": "auto"}), None, device=CPU)
    assert recipe.run.decode == "host"
    assert line == "images are decoded on the host: training is on the CPU (run.decode=auto)"


@pytest.mark.parametrize(("before", "wanted"), [({"run": {"decode": "device"}}, "device"), ({"run": {}}, "host")])
def test_the_answer_of_the_part_before_stays(before: dict[str, dict[str, str]], wanted: str) -> None:
    recipe, line = choose_decode(mae_recipe(run={"decode": "auto"}), before, device=CPU)
    assert recipe.run.decode == wanted
    assert "as in the part before" in line


def test_what_the_recipe_says_is_not_decided_again() -> None:
    given = mae_recipe(run={"decode": "device"})
    assert choose_decode(given, {"run": {"decode": "host"}}, device=CPU) == (given, "")


def with_triton(release: str = "3.5", capability: str = "9.0", *, demanded: bool = False) -> KernelFacts:
    kernels = Kernels(name="triton", reason=f"Triton {release}", is_demanded=demanded)
    return KernelFacts(kernels=kernels, capability=capability)


def with_torch(reason: str = "Triton is not installed") -> KernelFacts:
    return KernelFacts(kernels=Kernels(name="torch", reason=reason), capability="9.0")


@pytest.mark.parametrize(
    ("facts", "chosen", "reason"),
    [
        ([with_triton()] * 2, "triton", "Triton 3.5"),
        ([with_torch()] * 2, "torch", "Triton is not installed"),
        ([with_triton(), with_torch()], "torch", "on rank 1, Triton is not installed"),
        ([with_torch("BIOVFM_KERNELS=torch"), with_triton()], "torch", "on rank 0, BIOVFM_KERNELS=torch"),
        ([with_triton(), with_triton("3.6")], "torch", "Triton 3.5 on rank 0, Triton 3.6 on rank 1"),
        ([with_triton(demanded=True), with_triton("3.6", demanded=True)], "triton", "Triton 3.5"),
        (
            [with_triton(), with_triton(capability="8.0")],
            "triton",
            "Triton 3.5, on GPUs of compute capability 8.0 and 9.0",
        ),
    ],
)
def test_one_choice_of_kernels_for_all_ranks(facts: list[KernelFacts], chosen: str, reason: str) -> None:
    found = common_kernels(facts)
    assert (found.name, found.reason) == (chosen, reason)


def test_kernels_that_one_rank_asks_for_and_another_has_not_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"Triton 3\.5 is asked for on rank 0, but rank 1 has torch: Triton is not"):
        common_kernels([with_triton(demanded=True), with_torch()])
    with pytest.raises(ConfigError, match="a word"):
        common_kernels([with_triton(), KernelFacts(kernels=ConfigError("a word", hint="use auto"))])


def test_nothing_is_said_of_kernels_on_the_cpu() -> None:
    assert choose_kernels(World(0, 1, CPU)) == ("torch", "")


def test_the_kernels_of_a_gpu_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.choice._kernel_facts", lambda _: with_triton())
    assert choose_kernels(World(0, 1, CPU)) == ("triton", "crops and augmentation on the device by triton: Triton 3.5")


NO_GXX = Missing(reason="g++ is not found", remedy="install g++")
NO_GCC = Missing(reason="gcc is not found", remedy="install gcc")


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ([None], ""),
        ([None, None], ""),
        ([NO_GXX], "nothing is compiled: g++ is not found (run.compile=auto) — install g++"),
        ([NO_GCC] * 2, "nothing is compiled: gcc is not found (run.compile=auto) — install gcc"),
        ([None, NO_GCC], "nothing is compiled: on rank 1, gcc is not found (run.compile=auto) — install gcc"),
    ],
)
def test_where_one_rank_has_no_compiler_none_compiles(missing: list[Missing | None], line: str) -> None:
    assert common_compile(missing, is_demanded=False) == line
    if line:
        with pytest.raises(
            ConfigError, match=r"run\.compile=true: .*g.. is not found — install g.., or set run.compile"
        ):
            common_compile(missing, is_demanded=True)


@pytest.mark.parametrize(("value", "compiles"), [(True, True), (False, False), ("auto", False)])
def test_the_recipe_decides_where_all_is_there(monkeypatch: pytest.MonkeyPatch, value: Any, compiles: bool) -> None:
    monkeypatch.setattr("train.choice.find_missing", lambda _: None)
    assert choose_compile(mae_recipe(run={"compile": value}), World(0, 1, CPU)) == (compiles, "")


def test_auto_goes_on_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.choice.find_missing", lambda _: NO_GCC)
    recipe = mae_recipe(run={"compile": "auto"})
    assert choose_compile(recipe, World(0, 1, CPU)) == (False, "")  # it would not compile there anyway
    compiles, line = choose_compile(recipe, World(0, 1, torch.device("cuda", 0)))
    assert not compiles
    assert line.startswith("nothing is compiled: gcc is not found")


def test_without_a_compiler_a_run_that_demands_one_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.choice.find_missing", lambda _: NO_GXX)
    recipe = mae_recipe(run={"compile": True})
    with pytest.raises(ConfigError, match=r"run\.compile=true: g\+\+ is not found"):
        pretrain(recipe, data="memory", out=tmp_path / "run", stream=MemoryStream)
    assert not (tmp_path / "run").exists()


def test_a_run_by_auto_says_that_it_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.choice.find_missing", lambda _: NO_GXX)
    monkeypatch.setattr("train.choice.wants_compile", lambda run, _: run.compile == "auto")  # as on a GPU
    told: list[str] = []
    recipe = mae_recipe(run={"compile": "auto", "steps": 1})
    result = pretrain(recipe, data="memory", out=tmp_path / "run", stream=MemoryStream, say=told.append)
    assert result.finished
    assert "nothing is compiled: g++ is not found (run.compile=auto) — install g++" in told
    assert load_recipe(str(tmp_path / "run" / "recipe.yaml")).run.compile == "auto"
