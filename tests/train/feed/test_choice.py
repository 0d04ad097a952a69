"""Where images are decoded."""

from __future__ import annotations

import pytest
import torch

from tests.train.recipes import mae_recipe
from train.feed.choice import DecodeFacts, choose_decode, decide

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
