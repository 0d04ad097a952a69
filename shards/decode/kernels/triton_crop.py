"""Crop, antialiased resize and flip of images of any sizes, all crops of a group by one kernel.

Torch's antialiased `interpolate` twice, as `cut` calls it: along one axis, rounded to whole numbers, then along
the other. A program makes one tile of one crop as two products of matrices, weights by pixels: pixels are whole numbers
that float16 holds exactly, and a weight is the sum of two float16, which costs less than a thousandth of a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from shards.decode.base import Crops
from shards.decode.kernels.table import COLUMNS, Cuts, cuts_of, kernel_table

__all__ = ["crop_all", "try_on"]

_TILE: Final = (16, 32)
"""Values that a program makes along the axis that is resized last and first."""
_BLOCK: Final = 16
"""Pixels along each axis that it takes at a time."""


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _filter_at(distance: tl.tensor, reach: tl.constexpr) -> tl.tensor:
    """Torch's antialiasing filters: a triangle (reach 1), or Keys' cubic with a = -1/2 (reach 2)."""
    x = tl.abs(distance)
    if reach == 1:
        return tl.maximum(1.0 - x, 0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _whole(value: tl.tensor) -> tl.tensor:
    """The nearest whole number, the even one of two: float32 keeps no fraction beside 1.5 * 2**23."""
    return tl.minimum(tl.maximum((value + 12582912.0) - 12582912.0, 0.0), 255.0)


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _seen(entry: tl.tensor, place: tl.tensor, size: tl.constexpr, reach: tl.constexpr) -> tl.tensor:
    """Of one axis: for each place of the crop the pixels that it is made of.

    Args:
        entry: Points at the axis's extent in the table.
        place: Along the axis of the crop.
        size: Of the crop.
        reach: Of the filter.

    Returns:
        The first pixel, the one behind the last, the centre, 1 / scale of the filter, 1 / the sum of the weights.
    """
    extent, target = tl.load(entry).to(tl.int32), tl.load(entry + 2)
    corner, flip = tl.load(entry + 4), tl.load(entry + 6)
    near = tl.minimum(place, size - 1)
    resized = tl.where(flip != 0, size - 1 - near, near) + corner
    scale = extent.to(tl.float32) / target.to(tl.float32)
    stretch = tl.maximum(scale, 1.0)
    center = scale * (resized.to(tl.float32) + 0.5)
    begin = tl.maximum(tl.floor(center - reach * stretch + 0.5), 0.0).to(tl.int32)
    end = tl.minimum(tl.floor(center + reach * stretch + 0.5).to(tl.int32), extent)
    shrink, num = 1.0 / stretch, (2.0 * reach * stretch).to(tl.int32) + 1
    total = center * 0.0
    for tap in range(num):
        weight = _filter_at(((begin + tap).to(tl.float32) - center + 0.5) * shrink, reach)
        total += tl.where(begin + tap < end, weight, 0.0)
    return begin, end, center, shrink, 1.0 / total


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _weights(pixel: tl.tensor, seen: tl.tensor, reach: tl.constexpr) -> tl.tensor:
    """Weights of pixels (along one dimension) in places (along the other), each as the sum of two float16."""
    begin, end, center, shrink, share = seen
    weight = _filter_at((pixel.to(tl.float32) - center + 0.5) * shrink, reach) * share
    weight = tl.where((pixel >= begin) & (pixel < end), weight, 0.0)
    high = weight.to(tl.float16)
    return high, (weight - high.to(tl.float32)).to(tl.float16)


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _along_first(values: tl.tensor, weights: tl.tensor, so_far: tl.tensor) -> tl.tensor:
    """Add `(lines, pixels)` x `(pixels, places)`."""
    high, low = weights
    values = values.to(tl.float16)
    return tl.dot(values, low, tl.dot(values, high, so_far))


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _along_last(lines: tl.tensor, weights: tl.tensor, so_far: tl.tensor) -> tl.tensor:
    """Add `(places, lines)` x `(lines, values)`, the lines rounded."""
    high, low = weights
    lines = _whole(lines).to(tl.float16)
    return tl.dot(low, lines, tl.dot(high, lines, so_far))


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _crop(  # noqa: PLR0917 - a launch gives constants by position
    table: tl.tensor,
    out: tl.tensor,
    num_columns: tl.constexpr,
    size: tl.constexpr,
    channels: tl.constexpr,
    reach: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    block: tl.constexpr,
) -> None:
    """One tile of one crop; "first" and "last" are the axes in the order in which they are resized."""
    entry = table + tl.program_id(0).to(tl.int64) * num_columns
    source = tl.load(entry).to(tl.pointer_type(tl.uint8))
    to_channel, to_first, to_last = tl.load(entry + 1), tl.load(entry + 2), tl.load(entry + 3)
    across: tl.constexpr = (size + columns - 1) // columns
    last = (tl.program_id(1) // across * rows + tl.arange(0, rows))[:, None]
    first = (tl.program_id(1) % across * columns + tl.arange(0, columns))[None, :]
    seen_first, seen_last = _seen(entry + 4, first, size, reach), _seen(entry + 5, last, size, reach)
    begin_first, end_first = tl.min(seen_first[0]), tl.max(seen_first[1])
    begin_last, end_last = tl.min(seen_last[0]), tl.max(seen_last[1])

    red = tl.full([rows, columns], 0.0, tl.float32)
    green = tl.full([rows, columns], 0.0, tl.float32)
    blue = tl.full([rows, columns], 0.0, tl.float32)
    steps = tl.arange(0, block)
    for from_last in range(begin_last, end_last, block):
        at_last = from_last + steps
        line = source + at_last.to(tl.int64)[:, None] * to_last
        line_red = tl.full([block, columns], 0.0, tl.float32)
        line_green = tl.full([block, columns], 0.0, tl.float32)
        line_blue = tl.full([block, columns], 0.0, tl.float32)
        for from_first in range(begin_first, end_first, block):
            at_first = from_first + steps
            weights = _weights(at_first[:, None], seen_first, reach)
            there = (at_last < end_last)[:, None] & (at_first < end_first)[None, :]
            pixel = line + at_first.to(tl.int64)[None, :] * to_first
            line_red = _along_first(tl.load(pixel, mask=there, other=0), weights, line_red)
            if channels == 3:
                line_green = _along_first(tl.load(pixel + to_channel, mask=there, other=0), weights, line_green)
                line_blue = _along_first(tl.load(pixel + 2 * to_channel, mask=there, other=0), weights, line_blue)
        weights = _weights(at_last[None, :], seen_last, reach)
        red = _along_last(line_red, weights, red)
        if channels == 3:
            green = _along_last(line_green, weights, green)
            blue = _along_last(line_blue, weights, blue)

    to = out + tl.load(entry + 12) + last * tl.load(entry + 14) + first * tl.load(entry + 13)
    inside = (last < size) & (first < size)
    tl.store(to, _whole(red).to(tl.uint8), mask=inside)
    if channels == 3:
        tl.store(to + 1, _whole(green).to(tl.uint8), mask=inside)
        tl.store(to + 2, _whole(blue).to(tl.uint8), mask=inside)


def crop_all(
    images: Sequence[Tensor],
    cuts: Cuts,
    crops: Crops,
    out: Tensor | NDArray[np.uint8],
    rows: Sequence[int],
    *,
    turned: NDArray[np.bool_],
) -> None:
    """Make the crops of one group.

    Args:
        images: `B` of `(C, H, W)` uint8 on one device, with any strides.
        cuts: Where the crops lie.
        crops: The group.
        out: `(rows, num, size_px, size_px, C)` uint8; made on the device and copied where it lies elsewhere.
        rows: `B`, where each image goes.
        turned: `(B,)`, whether rows are resized before columns.
    """
    if not images:
        return
    device = images[0].device
    if isinstance(out, np.ndarray) or out.device != device or not out.is_contiguous():
        made = torch.empty((len(images), *out.shape[1:]), dtype=torch.uint8, device=device)
        crop_all(images, cuts, crops, made, range(len(images)), turned=turned)
        if isinstance(out, np.ndarray):
            out[list(rows)] = made.cpu().numpy()
        else:
            out[list(rows)] = made.to(out.device)
        return
    sources = [(image.data_ptr(), image.stride(0), image.stride(2), image.stride(1)) for image in images]
    size, channels = crops.size_px, out.shape[-1]
    table = kernel_table(cuts, sources, np.asarray(rows, np.int64), turned=turned, size_px=size, channels=channels)
    _launch(torch.from_numpy(table), out, size, channels, reach=1 if crops.interpolation == "bilinear" else 2)


def _launch(table: Tensor, out: Tensor, size: int, channels: int, *, reach: int) -> None:
    rows, columns = _TILE
    grid = (len(table), triton.cdiv(size, rows) * triton.cdiv(size, columns))
    arguments = (COLUMNS, size, channels, reach, rows, columns, _BLOCK)
    if out.device.type != "cuda":  # Triton's interpreter
        _crop[grid](table, out, *arguments)
        return
    with torch.cuda.device(out.device):
        _crop[grid](table.pin_memory().to(out.device, non_blocking=True), out, *arguments)


def try_on(device: torch.device) -> None:
    """Make one crop; raises whatever the compiler or the driver raises, or `RuntimeError` where it is wrong."""
    image = torch.arange(64, dtype=torch.uint8, device=device).view(1, 8, 8)
    out = torch.zeros((1, 1, 8, 8, 1), dtype=torch.uint8, device=device)
    crops = Crops(size_px=8, kind="center")
    cuts = cuts_of(np.zeros(1, np.uint64), 0, crops, np.array([[8, 8]]))
    crop_all([image], cuts, crops, out, [0], turned=np.zeros(1, np.bool_))
    if not torch.equal(out.view(-1), image.view(-1)):
        raise RuntimeError("a crop of the whole image is not the image")
