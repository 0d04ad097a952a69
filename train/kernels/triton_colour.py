"""Colour and blur of all crops of a batch, from their bytes to normalised values of the type that trains.

Four launches: the mean luma of the crops whose contrast changes, as it is at that place of their order; colour, which
ends the crops that are not blurred; and the two passes of the blur over the others. `train.augment` has the same steps
in torch. The table of a crop is that of `train.kernels.colour_table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from train.kernels.colour_table import COLUMNS
from train.kernels.launching import on_device_of

__all__ = ["colour"]

_TILE: Final = 1024
"""Pixels that a program makes."""


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _luma(red: tl.tensor, green: tl.tensor, blue: tl.tensor, channels: tl.constexpr) -> tl.tensor:
    if channels == 1:
        return red
    else:  # noqa: RET505 - Triton compiles what stands behind a return
        return red * 0.299 + green * 0.587 + blue * 0.114


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _within(value: tl.tensor) -> tl.tensor:
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _loaded(crops: tl.tensor, at: tl.tensor, inside: tl.tensor, channels: tl.constexpr) -> tl.tensor:
    """Values of some pixels in [0, 1]; the first channel three times where there is one."""
    red = tl.load(crops + at * channels, mask=inside, other=0).to(tl.float32) / 255.0
    if channels == 1:
        return red, red, red
    green = tl.load(crops + at * channels + 1, mask=inside, other=0).to(tl.float32) / 255.0
    blue = tl.load(crops + at * channels + 2, mask=inside, other=0).to(tl.float32) / 255.0
    return red, green, blue


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _hue_channel(sixth: tl.tensor, start: tl.constexpr, value: tl.tensor, chroma: tl.tensor) -> tl.tensor:
    turned = sixth + start
    k = turned - tl.floor(turned / 6.0) * 6.0
    return value - chroma * _within(tl.minimum(k, 4.0 - k))


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _turned(red: tl.tensor, green: tl.tensor, blue: tl.tensor, strength: tl.tensor) -> tl.tensor:
    """The hue turned, at the same value and saturation."""
    value = tl.maximum(tl.maximum(red, green), blue)
    chroma = value - tl.minimum(tl.minimum(red, green), blue)
    safe = tl.maximum(chroma, 1e-12)
    other = tl.where(value == green, 2.0 + (blue - red) / safe, 4.0 + (red - green) / safe)
    sixth = tl.where(value == red, (green - blue) / safe, other) + 6.0 * strength
    return (
        _hue_channel(sixth, 5, value, chroma),
        _hue_channel(sixth, 3, value, chroma),
        _hue_channel(sixth, 1, value, chroma),
    )


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _jittered(  # noqa: PLR0917 - as a launch gives them
    red: tl.tensor,
    green: tl.tensor,
    blue: tl.tensor,
    row: tl.tensor,
    num_places: tl.tensor,
    mean: tl.tensor,
    channels: tl.constexpr,
) -> tl.tensor:
    """The first operations of the crop's order."""
    for place in range(num_places):
        operation, strength = tl.load(row + place), tl.load(row + 4 + place)
        if operation == 0:
            red, green, blue = _within(red * strength), _within(green * strength), _within(blue * strength)
        elif operation == 1:
            red = _within((red - mean) * strength + mean)
            green = _within((green - mean) * strength + mean)
            blue = _within((blue - mean) * strength + mean)
        elif operation == 2:
            gray = _luma(red, green, blue, channels)
            red = _within((red - gray) * strength + gray)
            green = _within((green - gray) * strength + gray)
            blue = _within((blue - gray) * strength + gray)
        elif operation == 3:
            red, green, blue = _turned(red, green, blue, strength)
    return red, green, blue


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _finished(value: tl.tensor, solarize: tl.tensor, mean: tl.tensor, deviation: tl.tensor) -> tl.tensor:
    inverted = tl.where(value >= 128.0 / 255.0 - 1e-6, 1.0 - value, value)
    value = tl.where(solarize != 0, inverted, value)
    return (value - mean) / deviation


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _first_pixel(crop: tl.tensor, num_images: tl.tensor, num_crops: tl.constexpr, pixels: tl.constexpr) -> tl.tensor:
    """Where a crop of the crop-major order lies in the batch `(B, num, S, S, C)`, in pixels."""
    return ((crop % num_images) * num_crops + crop // num_images).to(tl.int64) * pixels


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _lumas(  # noqa: PLR0917 - a launch gives constants by position
    crops: tl.tensor,
    table: tl.tensor,
    sums: tl.tensor,
    num_images: tl.tensor,
    num_columns: tl.constexpr,
    num_crops: tl.constexpr,
    pixels: tl.constexpr,
    channels: tl.constexpr,
    tile: tl.constexpr,
) -> None:
    """The sum of one tile's luma just before contrast."""
    crop, row = tl.program_id(0), table + tl.program_id(0) * num_columns
    num_places = tl.load(row + 12).to(tl.int32)
    if num_places < 0:
        return
    at = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = at < pixels
    red, green, blue = _loaded(crops, _first_pixel(crop, num_images, num_crops, pixels) + at, inside, channels)
    red, green, blue = _jittered(red, green, blue, row, num_places, 0.0, channels)
    luma = tl.where(inside, _luma(red, green, blue, channels), 0.0)
    tl.store(sums + crop * tl.num_programs(1) + tl.program_id(1), tl.sum(luma, axis=0))


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _mean_luma(sums: tl.tensor, pixels: tl.constexpr, num_sums: tl.constexpr) -> tl.tensor:
    """Of the program's crop, from the sums of its tiles."""
    tiles = tl.arange(0, num_sums)
    at = tl.program_id(0) * tl.num_programs(1) + tiles
    return tl.sum(tl.load(sums + at, mask=tiles < tl.num_programs(1), other=0.0), axis=0) / pixels


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _colours(  # noqa: PLR0917 - a launch gives constants by position
    crops: tl.tensor,
    table: tl.tensor,
    sums: tl.tensor,
    blurred: tl.tensor,
    out: tl.tensor,
    means: tl.tensor,
    deviations: tl.tensor,
    num_images: tl.tensor,
    num_columns: tl.constexpr,
    num_crops: tl.constexpr,
    pixels: tl.constexpr,
    channels: tl.constexpr,
    tile: tl.constexpr,
    num_sums: tl.constexpr,
) -> None:
    """One tile of one crop: finished, or left in [0, 1] for the blur. Without sums it is normalised and no more."""
    crop, row = tl.program_id(0), table + tl.program_id(0) * num_columns
    at = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = at < pixels
    red, green, blue = _loaded(crops, _first_pixel(crop, num_images, num_crops, pixels) + at, inside, channels)
    place, solarize = tl.full([], -1.0, tl.float32), tl.full([], 0.0, tl.float32)
    if num_sums > 0:
        mean = 0.0
        if tl.load(row + 12) >= 0:
            mean = _mean_luma(sums, pixels, num_sums)
        red, green, blue = _jittered(red, green, blue, row, 4, mean, channels)
        if tl.load(row + 8) != 0:
            red = _luma(red, green, blue, channels)
            green, blue = red, red
        place, solarize = tl.load(row + 9), tl.load(row + 11)
    if place >= 0:
        left = blurred + place.to(tl.int64) * channels * pixels + at
        tl.store(left, red, mask=inside)
        if channels == 3:
            tl.store(left + pixels, green, mask=inside)
            tl.store(left + 2 * pixels, blue, mask=inside)
    else:
        to = out + crop.to(tl.int64) * channels * pixels + at
        red = _finished(red, solarize, means[0], deviations[0])
        tl.store(to, red.to(out.dtype.element_ty), mask=inside)
        if channels == 3:
            green = _finished(green, solarize, means[1], deviations[1])
            blue = _finished(blue, solarize, means[2], deviations[2])
            tl.store(to + pixels, green.to(out.dtype.element_ty), mask=inside)
            tl.store(to + 2 * pixels, blue.to(out.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _of(values: tl.tensor, channel: tl.tensor, channels: tl.constexpr) -> tl.tensor:
    """A channel's value out of a tuple."""
    if channels == 1:
        return values[0]
    else:  # noqa: RET505 - Triton compiles what stands behind a return
        return tl.where(channel == 0, values[0], tl.where(channel == 1, values[1], values[2]))


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _blur(  # noqa: PLR0917 - a launch gives constants by position
    source: tl.tensor,
    table: tl.tensor,
    rows: tl.tensor,
    out: tl.tensor,
    means: tl.tensor,
    deviations: tl.tensor,
    num_columns: tl.constexpr,
    size: tl.constexpr,
    channels: tl.constexpr,
    tile: tl.constexpr,
    is_last: tl.constexpr,
) -> None:
    """Nine taps, reflected at the border, over one tile of one plane: down the columns, at last along the rows."""
    plane = tl.program_id(0)
    crop = tl.load(rows + plane // channels)
    row = table + crop * num_columns
    sigma = tl.load(row + 10)
    at = tl.program_id(1) * tile + tl.arange(0, tile)
    inside = at < size * size
    y, x = at // size, at % size
    planes: tl.constexpr = size * size
    start = source + plane.to(tl.int64) * planes
    value, total = tl.full([tile], 0.0, tl.float32), 0.0
    for tap in range(9):
        scaled = (tap - 4.0) / sigma
        weight = tl.exp(-0.5 * scaled * scaled)
        moved = (x if is_last else y) + tap - 4
        moved = tl.abs(moved)
        moved = tl.where(moved < size, moved, 2 * (size - 1) - moved)
        value += weight * tl.load(start + (y * size + moved if is_last else moved * size + x), mask=inside, other=0.0)
        total += weight
    value = value / total
    if is_last:
        channel = plane % channels
        value = _finished(value, tl.load(row + 11), _of(means, channel, channels), _of(deviations, channel, channels))
        to = out + (crop * channels + channel).to(tl.int64) * planes + at
    else:
        to = out + plane.to(tl.int64) * planes + at
    tl.store(to, value.to(out.dtype.element_ty), mask=inside)


def colour(
    crops: Tensor,
    table: Tensor | None,
    blurred: Tensor | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    """Augment and normalise one group of crops.

    Args:
        crops: `(B, num, S, S, C)` uint8.
        table: Of `colour_table`, on the device of the crops; None for normalisation alone.
        blurred: Its `blur/rows`, there too; None where no crop is blurred.
        mean: `C` values to subtract.
        std: `C` values to divide by.
        dtype: Of the result.

    Returns:
        `(num * B, C, S, S)`, crop-major.
    """
    images, num, size, _, channels = crops.shape
    crops = crops.contiguous()
    out = torch.empty((images * num, channels, size, size), dtype=dtype, device=crops.device)
    with on_device_of(crops):
        _launch(crops, table, blurred, out, (tuple(mean), tuple(std)))
    return out


def _launch(
    crops: Tensor,
    table: Tensor | None,
    blurred: Tensor | None,
    out: Tensor,
    constants: tuple[tuple[float, ...], tuple[float, ...]],
) -> None:
    images, num, size, _, channels = crops.shape
    tiles = triton.cdiv(size * size, _TILE)
    grid = (images * num, tiles)
    fixed = (images, COLUMNS, num, size * size, channels, _TILE)
    if table is None:
        _colours[grid](crops, crops, crops, crops, out, *constants, *fixed, 0)
        return
    empty = partial(torch.empty, dtype=torch.float32, device=crops.device)
    planes = 0 if blurred is None else len(blurred) * channels
    sums, before, between = empty(grid), empty((planes, size, size)), empty((planes, size, size))
    _lumas[grid](crops, table, sums, *fixed)
    _colours[grid](crops, table, sums, before, out, *constants, *fixed, triton.next_power_of_2(tiles))
    if blurred is not None:
        last = (*constants, COLUMNS, size, channels, _TILE)
        _blur[planes, tiles](before, table, blurred, between, *last, is_last=False)
        _blur[planes, tiles](between, table, blurred, out, *last, is_last=True)
