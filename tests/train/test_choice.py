"""Where images are decoded."""

from __future__ import annotations

import pytest
import torch

from shards.decode.kernels.choice import Kernels
from shards.errors import ConfigError
from tests.train.recipes import mae_recipe
from train.choice import DecodeFacts, KernelFacts, choose_decode, choose_kernels, common_kernels, decide
from train.distributed import World

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
