"""Crop boxes and flips: a pure function of (seed, group, crop number, image size), the same in every decoder.

Random boxes follow RandomResizedCrop (Szegedy et al. 2015) as torchvision draws it: ten tries of a share of the area
and a log-uniform aspect ratio, then the largest centred box of an allowed ratio. Try `t` of crop `k` in group `g` is
the Philox block with key `seed` and counter `(t, k, g, 0)`: its words are area, ratio, top and left; block 10 decides
the flip. Counters whose last word is not 0 are free for other uses of the same seed.

Only +, -, x, / and sqrt (which IEEE 754 rounds in one way) are used, so that the C and the numpy version, and any two
machines, agree in every bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Crops
from shards.decode.philox import bounded, philox

__all__ = ["Boxes", "crop_boxes"]

TRIES: Final = 10
_EXP: Final = tuple(1.0 / math.factorial(k) for k in range(11))


@dataclass(frozen=True, slots=True, kw_only=True)
class Boxes:
    """The crops of one group.

    Attributes:
        box: `(B, num, 4)` float64: left, top, width and height in pixels of the upright image. Whole numbers for
            random boxes; a centre box is the real-valued pre-image of resizing first and cutting then.
        flip: `(B, num)` bool, horizontal flip.
    """

    box: NDArray[np.float64]
    flip: NDArray[np.bool_]

    def row(self, index: int) -> Boxes:
        """The `(num, 4)` boxes and `(num,)` flips of one image."""
        return Boxes(box=self.box[index], flip=self.flip[index])


def crop_boxes(
    seeds: NDArray[np.uint64],
    group: int,
    crops: Crops,
    widths: NDArray[np.int64],
    heights: NDArray[np.int64],
) -> Boxes:
    """Draw the boxes of one group for a chunk of images.

    Args:
        seeds: `(B,)` uint64, one key per sample.
        group: Position of `crops` in the decoder's list.
        crops: What to draw.
        widths: `(B,)` widths of the upright images in pixels, at least 1.
        heights: `(B,)` heights.
    """
    width, height = (np.asarray(size, np.float64)[:, None] for size in (widths, heights))
    shape = (len(seeds), crops.num)
    if crops.kind == "center":
        return Boxes(box=_center(crops, width, height, shape), flip=np.zeros(shape, np.bool_))
    blocks = philox(
        np.asarray(seeds, np.uint64)[:, None, None],
        (np.arange(TRIES + 1), np.arange(crops.num)[:, None], group, 0),
    )
    flip = np.less(_unit(blocks[:, :, TRIES, 0]), crops.flip_probability)
    return Boxes(box=_random(crops, width, height, blocks[:, :, :TRIES]), flip=flip)


def _random(
    crops: Crops, width: NDArray[np.float64], height: NDArray[np.float64], blocks: NDArray[np.uint32]
) -> NDArray[np.float64]:
    """Boxes from `(B, num, tries, 4)` words: the first try that fits, else the centre."""
    wide, high = width[:, :, None], height[:, :, None]
    share = crops.scale[0] + _unit(blocks[..., 0]) * (crops.scale[1] - crops.scale[0])
    low, high_ = math.log(crops.ratio[0]), math.log(crops.ratio[1])
    ratio = _exp(low + _unit(blocks[..., 1]) * (high_ - low))
    area = wide * high * share
    w, h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits: NDArray[np.bool_] = (w > 0) & (w <= wide) & (h > 0) & (h <= high)
    top = bounded(blocks[..., 2], np.maximum(high - h, 0).astype(np.int64) + 1)
    left = bounded(blocks[..., 3], np.maximum(wide - w, 0).astype(np.int64) + 1)
    first = np.argmax(fits, axis=-1)[..., None, None]
    tries = np.stack([left, top, w, h], axis=-1)
    drawn: NDArray[np.float64] = np.take_along_axis(tries, first, axis=2)[:, :, 0]
    return np.where(np.any(fits, axis=-1, keepdims=True), drawn, _fallback(crops, width, height))


def _fallback(crops: Crops, width: NDArray[np.float64], height: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest centred box whose ratio is allowed, `(B, 1, 4)`."""
    shape = width / height
    tall, flat = shape < min(crops.ratio), shape > max(crops.ratio)
    h = np.where(tall, np.rint(width / min(crops.ratio)), height)
    w = np.where(flat, np.rint(height * max(crops.ratio)), width)
    return np.stack([np.floor((width - w) / 2), np.floor((height - h) / 2), w, h], axis=-1)


def _center(
    crops: Crops, width: NDArray[np.float64], height: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """The box that resizing the short side to `size_px` and cutting the centre shows, `(B, num, 4)`."""
    size = float(crops.size_px)
    short = np.minimum(width, height)
    new_width = np.where(width <= height, size, np.floor(size * width / short))
    new_height = np.where(width <= height, np.floor(size * height / short), size)
    step_x, step_y = width / new_width, height / new_height
    left = np.rint((new_width - size) / 2) * step_x
    top = np.rint((new_height - size) / 2) * step_y
    box = np.stack([left, top, size * step_x, size * step_y], axis=-1)
    return np.broadcast_to(box, (*shape, 4)).copy()


def _unit(word: NDArray[np.uint32]) -> NDArray[np.float64]:
    """Random words as numbers in [0, 1)."""
    return word.astype(np.float64) * np.float64(2.0**-32)


def _exp(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The exponential of small numbers from sums and products alone (relative error below 1e-14 for |x| < 3)."""
    part = x * 0.0625
    total = np.full_like(part, _EXP[-1])
    for factor in reversed(_EXP[:-1]):
        total = total * part + factor
    for _ in range(4):
        total = total * total
    return total
