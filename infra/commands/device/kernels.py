"""The kernels of crops and colour: images per second, and how far they are from torch at most."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from infra.commands.device.parts import Part, Skipped
from infra.commands.device.quick import Answer
from shards.decode.kernels.choice import KernelName, kernels_for
from shards.decode.kernels.cut import write_crops
from train.augment import augment, blur_chances, draw_augmentation
from train.data import stream_crops
from train.randomness import Purpose, Share, to_device
from train.recipe_files import load_recipe

__all__ = ["colour_kernel", "crop_kernel", "kernel_parts"]

BATCH = 64
IMAGE_PX = 512
"""Side of the images that are cropped: a quarter of a megapixel, as in the decoder's rates."""
_GOALS: Mapping[str, tuple[float, float]] = {"crop kernel": (1.0, 20_000), "colour kernel": (1e-3, 50_000)}
"""Largest difference from torch (of 255; of a normalised value), and images per second on an H100."""


def kernel_parts(device: torch.device) -> list[Part]:
    """Both, for DINOv2's two global and eight local crops."""
    return [
        Part(
            name="crop kernel", run=lambda: crop_kernel(device), good=lambda figures: _is_good("crop kernel", figures)
        ),
        Part(
            name="colour kernel",
            run=lambda: colour_kernel(device),
            good=lambda figures: _is_good("colour kernel", figures),
        ),
    ]


def crop_kernel(device: torch.device, *, seconds: float = 1.0) -> Answer:
    """Crops of decoded images.

    Raises:
        Skipped: There is no GPU, or Triton does not work.
    """
    _need_triton(device)
    generator = torch.Generator(device).manual_seed(0)
    shape = (BATCH, 3, IMAGE_PX, IMAGE_PX)
    images = list(torch.randint(256, shape, dtype=torch.uint8, device=device, generator=generator))
    crops = stream_crops(load_recipe("dinov2-short"))
    out = [
        torch.zeros((BATCH, one.num, one.size_px, one.size_px, 3), dtype=torch.uint8, device=device) for one in crops
    ]
    seeds, turned = np.arange(BATCH, dtype=np.uint64), np.zeros(BATCH, np.bool_)

    def cut(by: KernelName) -> list[torch.Tensor]:
        write_crops(images, seeds, crops, out, range(BATCH), turned=turned, by=by)
        return out

    want = [made.clone() for made in cut("torch")]
    difference = max(float((made.int() - one.int()).abs().max()) for made, one in zip(cut("triton"), want, strict=True))
    return _answer(device, lambda: cut("triton"), difference, seconds)


def colour_kernel(device: torch.device, *, seconds: float = 1.0) -> Answer:
    """Colour, blur and normalisation of crops, with numbers that were drawn before, as in a run.

    Solarising is left out of the comparison, since rounding may take a value to the other side of its threshold.

    Raises:
        Skipped: There is no GPU, or Triton does not work.
    """
    _need_triton(device)
    recipe = load_recipe("dinov2-short")
    config = recipe.augment.model_copy(update={"solarize_probability": 0.0})
    first, second = stream_crops(recipe)
    chances = blur_chances(config, num_global=first.num, num_local=second.num)
    share = Share(seed=0, step=0, first_unit=0, num_units=1, unit_images=BATCH)
    purposes = (Purpose.AUGMENT_GLOBAL, Purpose.AUGMENT_LOCAL)
    generator = torch.Generator(device).manual_seed(0)
    groups = [
        torch.randint(
            256, (BATCH, one.num, one.size_px, one.size_px, 3), dtype=torch.uint8, device=device, generator=generator
        )
        for one in (first, second)
    ]

    def runner(by: KernelName, dtype: torch.dtype) -> Callable[[], list[torch.Tensor]]:
        drawn = [
            to_device(draw_augmentation(share, config, purpose=purpose, chances=chance, channels=3, by=by), device)
            for purpose, chance in zip(purposes, chances, strict=True)
        ]
        return lambda: [
            augment(crops, share, config, purpose=purpose, chances=chance, drawn=numbers, by=by, dtype=dtype)
            for crops, purpose, chance, numbers in zip(groups, purposes, chances, drawn, strict=True)
        ]

    want, got = runner("torch", torch.float32)(), runner("triton", torch.float32)()
    difference = max(float((made - one).abs().max()) for made, one in zip(got, want, strict=True))
    return _answer(device, runner("triton", torch.bfloat16), difference, seconds)


def _need_triton(device: torch.device) -> None:
    if device.type != "cuda":
        raise Skipped("needs a GPU")
    kernels = kernels_for(device)
    if kernels.name != "triton":
        raise Skipped(kernels.reason)


def _answer(device: torch.device, work: Callable[[], object], difference: float, seconds: float) -> Answer:
    work()
    torch.cuda.synchronize(device)
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(4):
            work()
        torch.cuda.synchronize(device)
        images += 4 * BATCH
    rate = images / (time.perf_counter() - began)
    figures = {
        "images_per_second": round(rate, 1),
        "largest_difference": difference,
        "card": torch.cuda.get_device_name(device),
    }
    return f"{rate:,.0f} images/s, at most {difference:.2g} from torch", figures


def _is_good(name: str, figures: Mapping[str, Any]) -> bool:
    """Whether it is close to torch and, on the card that the goal is for, quick enough."""
    most, least = _GOALS[name]
    quick = figures["images_per_second"] >= least or "H100" not in figures["card"]
    return bool(figures["largest_difference"] <= most and quick)
