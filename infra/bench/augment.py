"""Our augmentation of whole batches against kornia's and torchvision v2's: images a second, and how far they agree.

    python -m infra.bench.augment [--batch 64] [--size 224] [--threads 2]

Every operation gets float images in [0, 1] and one strength an image, the same for all three. kornia takes a tensor of
strengths; torchvision's functions take one number, so they are called image by image, as the references call them in
their data loaders. The differences are the largest ones from torchvision's result, which the references' images went
through. `pipeline` is all of it at DINOv2's probabilities for its second global crop, each library drawing its own
numbers; cropping and flipping, which our decoder does, are left out for everyone. Without kornia its column is empty.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from train import augment as ours
from train.randomness import Purpose, Share
from train.recipe import AugmentConfig

CONFIG = AugmentConfig(jitter_probability=0.8, gray_probability=0.2, blur="effective", solarize_probability=0.2)
SECOND_CROP = ours.Chances(blur=(0.9,), solarize=(0.2,))
TAPS = [ours.BLUR_TAPS, ours.BLUR_TAPS]
RANGES = {
    "brightness": (0.6, 1.4),
    "contrast": (0.6, 1.4),
    "saturation": (0.8, 1.2),
    "hue": (-0.1, 0.1),
    "gray": (0.0, 1.0),
    "blur": (0.1, 2.0),
    "solarise": (0.0, 1.0),
    "normalise": (0.0, 1.0),
}
"""Strengths of each operation from the first image to the last; the last three of them need none."""

Operation = Callable[[Tensor, Tensor], Tensor]
"""Images `(B, 3, H, W)` and strengths `(B,)` to images."""


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = smooth_images(arguments.batch, arguments.size)
    print(f"{arguments.batch} images of {arguments.size} px, {arguments.threads} threads, images/s\n")
    print("| | ours | torchvision v2 | kornia | ours − torchvision | kornia − torchvision |\n|---|---|---|---|---|---|")
    sides = {"ours": our_operations(), "torchvision": torchvision_operations(), "kornia": kornia_operations()}
    for name, (low, high) in RANGES.items():
        strengths = torch.linspace(low, high, len(images))
        print(row(name, sides, images, strengths, rounds=arguments.rounds), flush=True)
    whole: dict[str, Mapping[str, Operation]] = {
        "ours": {"pipeline": our_pipeline},
        "torchvision": {"pipeline": torchvision_pipeline()},
        "kornia": kornia_pipeline(),
    }
    print(row("pipeline", whole, images, strengths, rounds=arguments.rounds, compare=False))


def smooth_images(batch: int, size_px: int) -> Tensor:
    """Coloured noise with the large structures of pictures, `(B, 3, S, S)` in 255ths."""
    coarse = torch.rand(batch, 3, size_px // 8, size_px // 8, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=size_px, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round() / 255


def our_operations() -> dict[str, Operation]:
    """As `train.augment` calls them: on a copy of the rows, in place where it can."""

    def with_strength(operation: Any) -> Operation:
        return lambda x, strengths: operation(x.clone(), strength=strengths.view(-1, 1, 1, 1))

    return {
        "brightness": with_strength(ours.adjust_brightness),
        "contrast": with_strength(ours.adjust_contrast),
        "saturation": with_strength(ours.adjust_saturation),
        "hue": with_strength(ours.shift_hue),
        "gray": lambda x, _: ours.to_gray(x).contiguous(),
        "blur": with_strength(ours.gaussian_blur),
        "solarise": lambda x, _: ours.solarize(x),
        "normalise": lambda x, _: ours.normalize(x.clone(), CONFIG),
    }


def torchvision_operations() -> dict[str, Operation]:
    """Image by image where there is a strength."""

    def one_by_one(operation: Callable[[Tensor, float], Tensor]) -> Operation:
        return lambda x, strengths: torch.stack([operation(*each) for each in zip(x, strengths.tolist(), strict=True)])

    return {
        "brightness": one_by_one(vision.adjust_brightness),
        "contrast": one_by_one(vision.adjust_contrast),
        "saturation": one_by_one(vision.adjust_saturation),
        "hue": one_by_one(vision.adjust_hue),
        "gray": lambda x, _: vision.rgb_to_grayscale(x, num_output_channels=3),
        "blur": one_by_one(lambda image, sigma: vision.gaussian_blur(image, TAPS, [sigma, sigma])),
        "solarise": lambda x, _: vision.solarize(x, ours.SOLARIZE_FROM),
        "normalise": lambda x, _: vision.normalize(x, list(CONFIG.mean), list(CONFIG.std)),
    }


def kornia_operations() -> dict[str, Operation]:
    """Its batched functions whose meaning is torchvision's; nothing where it is not installed."""
    if importlib.util.find_spec("kornia") is None:
        return {}
    enhance, filters, color = (importlib.import_module(f"kornia.{name}") for name in ("enhance", "filters", "color"))
    mean, std = torch.tensor(CONFIG.mean), torch.tensor(CONFIG.std)
    return {
        "brightness": enhance.adjust_brightness_accumulative,
        "contrast": enhance.adjust_contrast_with_mean_subtraction,
        "saturation": enhance.adjust_saturation_with_gray_subtraction,
        "hue": lambda x, strengths: enhance.adjust_hue(x, strengths * 2 * math.pi),
        "gray": lambda x, _: color.rgb_to_grayscale(x).repeat(1, 3, 1, 1),
        "blur": lambda x, strengths: filters.gaussian_blur2d(x, tuple(TAPS), strengths.view(-1, 1).repeat(1, 2)),
        "solarise": lambda x, _: enhance.solarize(x, ours.SOLARIZE_FROM),
        "normalise": lambda x, _: enhance.normalize(x, mean, std),
    }


def our_pipeline(x: Tensor, _: Tensor) -> Tensor:
    """`train.augment.augment`, from the bytes that the decoder gives."""
    share = Share(seed=0, step=0, first_unit=0, num_units=1, unit_images=len(x))
    crops = (x * 255).byte().permute(0, 2, 3, 1).unsqueeze(1)
    return ours.augment(crops, share, CONFIG, purpose=Purpose.AUGMENT_GLOBAL, chances=SECOND_CROP)


def torchvision_pipeline() -> Operation:
    """As the reference composes it, image by image."""
    jitter = v2.ColorJitter(CONFIG.brightness, CONFIG.contrast, CONFIG.saturation, CONFIG.hue)
    compose = v2.Compose(
        [
            v2.RandomApply([jitter], p=CONFIG.jitter_probability),
            v2.RandomGrayscale(CONFIG.gray_probability),
            v2.RandomApply([v2.GaussianBlur(TAPS, CONFIG.blur_sigma)], p=SECOND_CROP.blur[0]),
            v2.RandomSolarize(ours.SOLARIZE_FROM, SECOND_CROP.solarize[0]),
            v2.Normalize(CONFIG.mean, CONFIG.std),
        ]
    )
    return lambda x, _: torch.stack([compose(image) for image in x])


def kornia_pipeline() -> dict[str, Operation]:
    """Its own augmentation classes, a parameter set an image."""
    if importlib.util.find_spec("kornia") is None:
        return {}
    kornia = importlib.import_module("kornia.augmentation")
    jitter = (CONFIG.brightness, CONFIG.contrast, CONFIG.saturation, CONFIG.hue)
    steps = torch.nn.Sequential(
        kornia.ColorJitter(*jitter, p=CONFIG.jitter_probability),
        kornia.RandomGrayscale(p=CONFIG.gray_probability),
        kornia.RandomGaussianBlur(tuple(TAPS), CONFIG.blur_sigma, p=SECOND_CROP.blur[0]),
        kornia.RandomSolarize(0.0, 0.0, p=SECOND_CROP.solarize[0]),
        kornia.Normalize(torch.tensor(CONFIG.mean), torch.tensor(CONFIG.std)),
    )
    return {"pipeline": lambda x, _: steps(x)}


def row(
    name: str,
    sides: Mapping[str, Mapping[str, Operation]],
    images: Tensor,
    strengths: Tensor,
    *,
    rounds: int,
    compare: bool = True,
) -> str:
    """One line of the table; the sides take turns, so that they have the same neighbours."""
    operations = {side: by_name[name] for side, by_name in sides.items() if name in by_name}
    results = {side: operation(images, strengths) for side, operation in operations.items()}
    seconds: dict[str, list[float]] = {side: [] for side in operations}
    for _ in range(rounds):
        for side, operation in operations.items():
            began = time.perf_counter()
            operation(images, strengths)
            seconds[side].append(time.perf_counter() - began)
    speeds = [f"{len(images) / statistics.median(seconds[side]):,.0f}" if side in seconds else "" for side in sides]
    apart = [
        f"{(results[side] - results['torchvision']).abs().max():.1e}" if compare and side in results else ""
        for side in ("ours", "kornia")
    ]
    return f"| {' | '.join([name, *speeds, *apart])} |"


if __name__ == "__main__":
    main()
