"""Augmentation of whole batches on the device that trains, one parameter set a crop.

The stream has already cropped and flipped; here come colour jitter, grayscale, blur, solarising and normalisation, in
that order (DINOv2's), as plain tensor operations that run alike on the CPU and on a GPU. Nothing synchronises: which
rows take part is decided from numbers on the host, ahead of time (`draw_augmentation`).

Gray sources: a gray image arrives as three equal channels. Hue, saturation and grayscale leave equal channels equal, so
such images get brightness, contrast, blur and solarising alone, with no special case; all images are normalised by the
same mean and standard deviation. With one input channel the colour steps are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from shards.decode.kernels.choice import KernelName
from train.kernels.colour_table import colour_table
from train.optim import constants
from train.randomness import Purpose, Share, to_device
from train.recipe import AugmentConfig

__all__ = [
    "NUM_DRAWS",
    "Chances",
    "adjust_brightness",
    "adjust_contrast",
    "adjust_saturation",
    "augment",
    "blur_chances",
    "draw_augmentation",
    "gaussian_blur",
    "normalize",
    "shift_hue",
    "solarize",
    "to_gray",
]

NUM_DRAWS = 12
"""Uniform numbers a crop: jitter?, brightness, contrast, saturation, hue, order (4), gray?, blur?, solarise?

The blur's sigma re-uses the number that decided for it, stretched back to [0, 1]."""

LUMA = (0.299, 0.587, 0.114)
JITTER = ("brightness", "contrast", "saturation", "hue")
BLUR_TAPS = 9
SOLARIZE_FROM = 128 / 255


@dataclass(frozen=True, slots=True)
class Chances:
    """Probabilities that differ between the crops of a group, one entry a crop."""

    blur: tuple[float, ...]
    solarize: tuple[float, ...]


def blur_chances(config: AugmentConfig, *, num_global: int, num_local: int) -> tuple[Chances, Chances]:
    """What the recipe's blur preset and solarising mean for global and local crops."""
    first, second, local = {"effective": (0.0, 0.9, 0.5), "intended": (1.0, 0.1, 0.5), "none": (0.0, 0.0, 0.0)}[
        config.blur
    ]
    solarize_second = (0.0, config.solarize_probability)
    return (
        Chances(blur=(first, second)[:num_global], solarize=solarize_second[:num_global]),
        Chances(blur=(local,) * num_local, solarize=(0.0,) * num_local),
    )


def draw_augmentation(
    share: Share,
    config: AugmentConfig,
    *,
    purpose: Purpose,
    chances: Chances,
    channels: int,
    by: KernelName = "torch",
) -> dict[str, NDArray[Any]]:
    """Which crops each operation changes and how strongly, on the host: what `augment` takes as `drawn`.

    Args:
        share: Which images these are; the numbers follow from it.
        config: Strengths.
        purpose: Which sequence of random numbers to use.
        chances: Blur and solarising a crop.
        channels: Of the crops.
        by: What will augment.

    Returns:
        For torch `<step>/rows` `(n,)` int64 into the crop-major batch and, where the step has one, `<step>/strength`
        `(n,)` float32; a step that changes no crop is left out. For Triton the same in `colour_table`'s form.
    """
    num = len(chances.blur)
    draws = share.draw(purpose, lambda rng: rng.random((share.unit_images, num, NUM_DRAWS)))
    by_crop = draws.reshape(share.num_images, num, NUM_DRAWS).transpose(1, 0, 2).reshape(-1, NUM_DRAWS)
    drawn: dict[str, NDArray[Any]] = {}
    for name, chosen, strength in _decide(by_crop, config, chances, channels):
        rows = np.flatnonzero(chosen)
        if len(rows):
            drawn[f"{name}/rows"] = rows
            if strength is not None:
                drawn[f"{name}/strength"] = strength[rows].astype(np.float32)
    return drawn if by == "torch" else colour_table(drawn, len(by_crop))


_Decision = tuple[str, NDArray[np.bool_], NDArray[np.float64] | None]


def _decide(draws: NDArray[np.float64], config: AugmentConfig, chances: Chances, channels: int) -> Iterator[_Decision]:
    """Name, chosen crops and strengths of each step."""
    num_images = len(draws) // len(chances.blur)
    if config.jitter_probability > 0:
        yield from _decide_jitter(draws, config, channels)
    if channels == 3:
        yield "gray", draws[:, 9] < config.gray_probability, None
    blur = np.repeat(chances.blur, num_images)
    stretched = draws[:, 10] / np.maximum(blur, 1e-12)
    low, high = config.blur_sigma
    yield "blur", draws[:, 10] < blur, low + (high - low) * stretched
    yield "solarize", draws[:, 11] < np.repeat(chances.solarize, num_images), None


def _decide_jitter(draws: NDArray[np.float64], config: AugmentConfig, channels: int) -> Iterator[_Decision]:
    """Torchvision's ColorJitter: four operations in an order of their own for every crop."""
    chosen = draws[:, 0] < config.jitter_probability
    spread = 2 * draws[:, 1:5] - 1
    strengths = [
        1 + config.brightness * spread[:, 0],
        1 + config.contrast * spread[:, 1],
        1 + config.saturation * spread[:, 2],
        config.hue * spread[:, 3],
    ]
    order = draws[:, 5:9].argsort(axis=1)
    for slot in range(4):
        for index in range(4 if channels == 3 else 2):
            yield f"{JITTER[index]}@{slot}", chosen & (order[:, slot] == index), strengths[index]


def augment(
    crops: Tensor,
    share: Share,
    config: AugmentConfig,
    *,
    purpose: Purpose,
    chances: Chances | None = None,
    drawn: Mapping[str, Tensor] | None = None,
    by: KernelName = "torch",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Augment and normalise one group of crops.

    Args:
        crops: `(B, num, S, S, C)` uint8 on the device that computes.
        share: Which images these are; the parameters follow from it.
        config: Strengths.
        purpose: Which sequence of random numbers to use.
        chances: Blur and solarising a crop; None for normalisation alone.
        drawn: What `draw_augmentation` gives for these arguments, on the device; drawn now where None.
        by: What augments: the operations below, or kernels that give the same within 1e-3.
        dtype: Of the result of kernels; torch's is float32.

    Returns:
        `(num * B, C, S, S)`, crop-major.
    """
    channels = crops.shape[-1]
    if chances is None:
        drawn = {}
    elif drawn is None:
        numbers = draw_augmentation(share, config, purpose=purpose, chances=chances, channels=channels, by=by)
        drawn = to_device(numbers, crops.device)
    if by == "triton":
        from train.kernels.triton_colour import colour

        mean, std = (_of_channels(values, channels) for values in (config.mean, config.std))
        return colour(crops, drawn.get("table"), drawn.get("blur/rows"), mean=mean, std=std, dtype=dtype)
    x = crops.permute(1, 0, 4, 2, 3).flatten(0, 1).float().div_(255.0)
    if drawn:
        for name, operation in _steps().items():
            if f"{name}/rows" in drawn:
                x = _on_rows(x, drawn[f"{name}/rows"], operation, drawn.get(f"{name}/strength"))
    return normalize(x, config)


def normalize(x: Tensor, config: AugmentConfig) -> Tensor:
    """Subtract the mean and divide by the deviation, in place; one channel takes the luma-weighted values."""
    mean, std = constants(config.mean, like=x), constants(config.std, like=x)
    if x.shape[1] == 1:
        luma = constants(LUMA, like=x)
        mean, std = (mean * luma).sum().view(1), (std * luma).sum().view(1)
    return x.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


def _of_channels(values: Sequence[float], channels: int) -> Sequence[float]:
    """One value for each channel; one channel takes the luma-weighted value."""
    return values if channels == 3 else [sum(one * weight for one, weight in zip(values, LUMA, strict=True))]


def _steps() -> dict[str, Callable[..., Tensor]]:
    """The operations by name, in the order in which they are applied."""
    jitter = (adjust_brightness, adjust_contrast, adjust_saturation, shift_hue)
    steps: dict[str, Callable[..., Tensor]] = {
        f"{name}@{slot}": operation for slot in range(4) for name, operation in zip(JITTER, jitter, strict=True)
    }
    return steps | {"gray": to_gray, "blur": gaussian_blur, "solarize": solarize}


def _on_rows(x: Tensor, rows: Tensor, operation: Callable[..., Tensor], strength: Tensor | None) -> Tensor:
    settings = {} if strength is None else {"strength": strength.view(-1, 1, 1, 1)}
    return x.index_copy_(0, rows, operation(x.index_select(0, rows), **settings))


def adjust_brightness(x: Tensor, *, strength: Tensor) -> Tensor:
    """Scale `(B, C, H, W)` in [0, 1], in place, by `strength` `(B, 1, 1, 1)`."""
    return x.mul_(strength).clamp_(0, 1)


def adjust_contrast(x: Tensor, *, strength: Tensor) -> Tensor:
    """Scale the distance from the image's mean luma, in place."""
    mean = _luma(x).mean(dim=(1, 2, 3), keepdim=True)
    return x.sub_(mean).mul_(strength).add_(mean).clamp_(0, 1)


def adjust_saturation(x: Tensor, *, strength: Tensor) -> Tensor:
    """Scale the distance from the pixel's own luma, in place."""
    gray = _luma(x)
    return x.sub_(gray).mul_(strength).add_(gray).clamp_(0, 1)


def _luma(x: Tensor) -> Tensor:
    if x.shape[1] == 1:
        return x
    red, green, blue = LUMA
    return (x[:, :1] * red).add_(x[:, 1:2], alpha=green).add_(x[:, 2:], alpha=blue)


def shift_hue(x: Tensor, *, strength: Tensor) -> Tensor:
    """Turn the hue of `(B, 3, H, W)` in [0, 1] by `strength` `(B, 1, 1, 1)` turns, at the same value and saturation."""
    red, green, blue = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    safe = chroma.clamp_min(1e-12)
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixth = sixth + 6 * strength.squeeze(1)
    channels = [(sixth + start).remainder_(6) for start in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1) for k in channels], dim=1)


def to_gray(x: Tensor) -> Tensor:
    """ITU-R 601 luma in all three channels."""
    return _luma(x).expand_as(x)


def gaussian_blur(x: Tensor, *, strength: Tensor) -> Tensor:
    """Blur `(B, C, H, W)` by nine taps a direction, reflected at the border; `strength` is sigma in pixels."""
    half, (batch, channels, height, width) = BLUR_TAPS // 2, x.shape
    offsets = torch.arange(-half, half + 1, device=x.device, dtype=x.dtype)
    weights = torch.exp(-0.5 * (offsets / strength.view(-1, 1)) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, dim=0)
    # every channel of every image is a group of its own, with its own weights
    planes = functional.pad(x, (half, half, half, half), mode="reflect").flatten(0, 1).unsqueeze(0)
    rows = functional.conv2d(planes, weights.view(-1, 1, BLUR_TAPS, 1), groups=batch * channels)
    blurred = functional.conv2d(rows, weights.view(-1, 1, 1, BLUR_TAPS), groups=batch * channels)
    return blurred.view(batch, channels, height, width)


def solarize(x: Tensor) -> Tensor:
    """Invert what is at least 128 of 255."""
    return torch.where(x >= SOLARIZE_FROM - 1e-6, 1 - x, x)
