from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.train.recipes import dino_recipe
from train.bf16 import Bf16Copy
from train.methods import build_method

pytestmark = pytest.mark.torch


def teacher() -> nn.Module:
    method = build_method(dino_recipe(model={"registers": 2}))
    return method.teacher.eval()  # type: ignore[union-attr,operator]


def outputs(network: nn.Module) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    images, rows = torch.randn(4, 3, 32, 32), torch.arange(7)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        cls, logits, _ = network(images, rows)
    return cls, logits


def test_the_copy_gives_what_autocast_gives_to_the_last_bit() -> None:
    network = teacher()
    for got, want in zip(outputs(Bf16Copy(network).current()), outputs(network), strict=True):
        assert torch.equal(got, want)


def test_the_copy_follows_every_change_in_place() -> None:
    network = teacher()
    copy = Bf16Copy(network)
    copy.current()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.25)
    for got, want in zip(outputs(copy.current()), outputs(network), strict=True):
        assert torch.equal(got, want)
    state = {name: value + 0.5 for name, value in network.state_dict().items()}
    network.load_state_dict(state)
    for got, want in zip(outputs(copy.current()), outputs(network), strict=True):
        assert torch.equal(got, want)


def test_only_matrices_are_held_twice() -> None:
    network = teacher()
    copy = Bf16Copy(network).current()
    twice = [name for (name, a), b in zip(network.named_parameters(), copy.parameters(), strict=True) if a is not b]
    assert twice
    assert all("qkv" in name or "proj" in name or "fc" in name or "mlp" in name for name in twice)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_no_checkpoint_holds_the_copy() -> None:
    method = build_method(dino_recipe(run={"precision": "bf16"}))
    before = set(method.state_dict())
    method._teacher_to_call()  # type: ignore[operator]
    assert set(method.state_dict()) == before
    assert not any(p.dtype == torch.bfloat16 for p in method.parameters())
