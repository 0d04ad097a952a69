"""Cut the crops of a batch out of images on a device: by the kernel, or by torch image by image, the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Crops
from shards.decode.kernels.table import Cuts, cuts_of

if TYPE_CHECKING:
    import torch

__all__ = ["write_crops"]


def write_crops(
    images: Sequence[torch.Tensor],
    seeds: NDArray[np.uint64],
    crops: Sequence[Crops],
    out: Sequence[Any],
    rows: Sequence[int],
    *,
    turned: NDArray[np.bool_],
    by: Literal["torch", "triton"],
) -> None:
    """Cut all crops of some images.

    Args:
        images: `B` of `(C, H, W)` uint8, upright, on one device.
        seeds: `(B,)` uint64, of their boxes.
        crops: The groups.
        out: One `(rows, num, size_px, size_px, C)` uint8 a group, a tensor or a numpy array.
        rows: Where each image goes.
        turned: `(B,)`, whether EXIF has it lie on its side: then the host resizes down before across.
        by: What cuts.
    """
    sizes = np.array([(image.shape[2], image.shape[1]) for image in images], np.int64).reshape(-1, 2)
    for group, (wanted, target) in enumerate(zip(crops, out, strict=True)):
        cuts = cuts_of(seeds, group, wanted, sizes)
        if by == "triton":
            from shards.decode.kernels.triton_crop import crop_all

            crop_all(images, cuts, wanted, target, rows, turned=turned)
            continue
        for index, (image, row) in enumerate(zip(images, rows, strict=True)):
            _one_by_one(image, cuts, index, wanted, target[row], turned=bool(turned[index]))


def _one_by_one(image: torch.Tensor, cuts: Cuts, index: int, crops: Crops, slot: Any, *, turned: bool) -> None:
    for number, flip in enumerate(cuts.flip[index]):
        crop = _resize(image, cuts, (index, number), crops, turned=turned)
        made = (crop.flip(2) if flip else crop).permute(1, 2, 0)
        if isinstance(slot, np.ndarray):
            slot[number] = made.cpu().numpy()
        else:
            slot[number].copy_(made)


def _resize(image: torch.Tensor, cuts: Cuts, which: tuple[int, int], crops: Crops, *, turned: bool) -> torch.Tensor:
    import torch
    from torch.nn.functional import interpolate

    (left, top), (width, height) = cuts.origin[which].tolist(), cuts.extent[which].tolist()
    (wide, high), (x, y) = cuts.target[which].tolist(), cuts.corner[which].tolist()
    pixels = image[None, :, top : top + height, left : left + width].float()
    first = (high, width) if turned else (height, wide)
    for shape in (first, (high, wide)):  # rounded between the two passes, as on the host
        pixels = interpolate(pixels, shape, mode=crops.interpolation, antialias=True).round().clamp(0, 255)
    return pixels[0, :, y : y + crops.size_px, x : x + crops.size_px].to(torch.uint8)
