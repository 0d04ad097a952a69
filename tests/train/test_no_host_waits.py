"""A step under fake CUDA tensors: a read by the host or a tensor on the wrong device fails here, without a GPU."""

from __future__ import annotations

import contextlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.train.recipes import dino_recipe, mae_recipe
from train.distributed import World
from train.late import Figures
from train.loop import Loop
from train.methods import build_method
from train.methods.base import Method
from train.optim import build_optimizer
from train.recipe import Recipe, RunConfig
from train.schedules import schedule

pytestmark = pytest.mark.torch

CUDA = torch.device("cuda", 0)
RECIPES = {
    "mae": mae_recipe(run={"precision": "bf16"}),
    "dinov2": dino_recipe(run={"precision": "bf16"}, model={"drop_path": 0.3}, augment={"solarize_probability": 0.2}),
    "dinov2-sinkhorn": dino_recipe(method={"centering": "sinkhorn"}, model={"registers": 2}),
    "dinov2-accumulate": dino_recipe(run={"accumulate": 2}),
}


def move(method: Method, device: torch.device) -> None:
    """Replace every parameter and buffer by an empty one on another device."""
    for module in method.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, device=device)
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype, device=device))


@contextlib.contextmanager
def fake_cuda() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True), sdpa_kernel(SDPBackend.MATH):
        yield


@contextlib.contextmanager
def autocast_without_driver(run: RunConfig, _: torch.device) -> Iterator[None]:
    """What `torch.autocast` sets, which it refuses to do where there is no GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", run.precision == "bf16")
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def whole_step(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> Figures:
    """The loop's own step on fake CUDA tensors, from crops to the figures that wait to be read."""
    monkeypatch.setattr("train.loop.Figures", lambda names, packed: (names, packed))
    monkeypatch.setattr("train.loop.autocast", autocast_without_driver)
    method = build_method(recipe)

    def backward(_: torch.Tensor) -> None:  # autograd's engine wants a driver; gradients have their parameters' shapes
        for parameter in method.network.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with fake_cuda():
        move(method, CUDA)
        loop = Loop(
            recipe=recipe,
            world=World(0, 1, CUDA),
            method=method,
            network=method.network,
            optimizer=build_optimizer(method.network, method.multipliers, recipe.optim),
            stream=None,  # type: ignore[arg-type]  # the step does not read it
            checkpoints=None,  # type: ignore[arg-type]
        )
        shapes = [(recipe.run.global_batch, crop.num, crop.size_px, crop.size_px, 3) for crop in recipe.crops()]
        views: Any = [torch.empty(shape, dtype=torch.uint8, device=CUDA) for shape in shapes]
        return loop.submit(views, schedule(recipe, 2), {"checksum": 7.0, "stop": 0.0})


@pytest.mark.parametrize("name", RECIPES)
def test_no_step_reads_from_the_device_or_mixes_devices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names, packed = whole_step(RECIPES[name], monkeypatch)  # type: ignore[misc]
    assert packed.device == CUDA
    assert packed.shape == (len(names),)
    assert {"loss", "checksum", "stop"} < set(names)


PLACES = [
    ("dinov2", "train.methods.dinov2.augment"),
    ("dinov2", "train.methods.dinov2.koleo_loss"),
    ("dinov2", "train.methods.dinov2.ibot_loss"),
    ("dinov2", "train.loop.mean_over_ranks"),
    ("dinov2", "train.methods.dinov2.DinoV2.prepare"),
    ("dinov2", "train.methods.dinov2.DinoV2.losses"),
    ("dinov2", "train.methods.dinov2.DinoV2.update_teacher"),
    ("mae", "train.methods.mae.augment"),
    ("mae", "train.methods.mae.Mae.prepare"),
    ("mae", "train.methods.mae.MaeDecoder.forward"),
    ("mae", "train.methods.mae.Mae.losses"),
    ("mae", "torch.optim.AdamW.step"),
]
"""Recipe, and the function behind which a read is planted: augmentation, inputs, forward pass, losses, optimiser."""


def planted(function: Any, read: Any) -> Any:
    def reading(*arguments: Any, **settings: Any) -> Any:
        result = function(*arguments, **settings)
        read()
        return result

    return reading


def read_of_the_device() -> None:
    torch.ones(3, device=CUDA).sum().item()


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_a_planted_read_is_found(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, planted(pkgutil.resolve_name(place), read_of_the_device))
    with pytest.raises(DataDependentOutputException):
        whole_step(RECIPES[name], monkeypatch)


def test_a_tensor_on_the_wrong_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.methods.dinov2.koleo_loss", lambda x: x.mean() + torch.ones(3).sum(0, keepdim=True))
    with pytest.raises(RuntimeError, match="device"):
        whole_step(RECIPES["dinov2"], monkeypatch)
