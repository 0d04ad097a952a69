"""Methods that augment by kernels: the same inputs as by torch, from numbers drawn in their form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels import need_triton
from tests.train.recipes import dino_recipe, mae_recipe
from train.distributed import World, distribute
from train.methods import build_method
from train.randomness import Share, to_device
from train.recipe import Recipe

pytestmark = [pytest.mark.torch, pytest.mark.slow]
need_triton()

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SHARE = Share(seed=4, step=3, first_unit=0, num_units=1, unit_images=2)


def prepared(recipe: Recipe, by: str) -> Any:
    torch.manual_seed(0)
    method = build_method(recipe).to(DEVICE)
    method.kernels = by  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(1)
    views = [
        torch.randint(256, (2, crop.num, crop.size_px, crop.size_px, 3), dtype=torch.uint8, generator=generator)
        for crop in recipe.crops()
    ]
    drawn = to_device(method.draw(SHARE), DEVICE)
    assert ("global/table" in drawn) is (by == "triton" and recipe.method.name == "dinov2")
    return method.prepare([view.to(DEVICE) for view in views], SHARE, drawn)


def test_dinov2_sees_the_same_crops() -> None:
    want, got = (prepared(dino_recipe(), by) for by in ("torch", "triton"))
    for name in ("global_images", "local_images", "masks", "weights"):
        torch.testing.assert_close(getattr(got, name), getattr(want, name), rtol=0, atol=1e-3)


def test_dinov2_in_bf16_gets_its_crops_in_bf16() -> None:
    recipe = dino_recipe(run={"precision": "bf16"})
    want, got = (prepared(recipe, by) for by in ("torch", "triton"))
    assert got.global_images.dtype == got.local_images.dtype == torch.bfloat16
    assert want.global_images.dtype == torch.float32
    torch.testing.assert_close(got.global_images.float(), want.global_images, rtol=1e-2, atol=1e-3)


def test_mae_sees_the_same_patches_in_float32() -> None:
    want, got = (prepared(mae_recipe(run={"precision": "bf16"}), by) for by in ("torch", "triton"))
    assert got.patches.dtype == torch.float32
    torch.testing.assert_close(got.patches, want.patches, rtol=0, atol=1e-5)


def test_a_method_takes_the_kernels_of_the_run() -> None:
    method = build_method(mae_recipe())
    distribute(method, mae_recipe(), World(0, 1, torch.device("cpu")), kernels="triton")
    assert method.kernels == "triton"
