"""iBOT's block masks (after BEiT, Bao et al. 2021) and how DINOv2 spreads them over a batch."""

from __future__ import annotations

import math
import random

import numpy as np
from numpy.typing import NDArray

__all__ = ["batch_masks", "block_mask"]

MIN_BLOCK = 4
ASPECT = (0.3, 1 / 0.3)
TRIES = 10


def block_mask(num_masked: int, *, side: int, source: random.Random, largest: int | None = None) -> NDArray[np.bool_]:
    """Mask about `num_masked` patches (never more) of a square grid by overlapping rectangles.

    Args:
        num_masked: Patches wanted.
        side: Patches a side.
        source: Random numbers.
        largest: Most patches a rectangle may add; half the grid where not given.

    Returns:
        `(side, side)` bool, True where masked.
    """
    mask = np.zeros((side, side), dtype=np.bool_)
    limit = side * side // 2 if largest is None else largest
    count = 0
    while count < num_masked:
        added = _add_block(mask, min(num_masked - count, limit), source)
        if added == 0:
            break
        count += added
    return mask


def _add_block(mask: NDArray[np.bool_], most: int, source: random.Random) -> int:
    side = len(mask)
    for _ in range(TRIES):
        area = source.uniform(MIN_BLOCK, most)
        aspect = math.exp(source.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= side or width >= side:
            continue
        top, left = source.randint(0, side - height), source.randint(0, side - width)
        block = mask[top : top + height, left : left + width]
        added = height * width - int(block.sum())
        if 0 < added <= most:
            block[:] = True
            return added
    return 0


def batch_masks(
    num_crops: int, *, side: int, probability: float, ratio: tuple[float, float], source: random.Random
) -> NDArray[np.bool_]:
    """Masks of a unit's global crops: a fixed share is masked, the ratios stratified over the range, then shuffled.

    Returns:
        `(num_crops, side * side)` bool.
    """
    num_masked_crops = int(num_crops * probability)
    edges = np.linspace(*ratio, num_masked_crops + 1)
    masks = [
        block_mask(int(side * side * source.uniform(low, high)), side=side, source=source)
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]
    masks += [np.zeros((side, side), dtype=np.bool_)] * (num_crops - num_masked_crops)
    source.shuffle(masks)
    return np.stack(masks).reshape(num_crops, side * side)
