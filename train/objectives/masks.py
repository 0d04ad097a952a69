"""iBOT's block masks (after BEiT, Bao et al. 2021) and how DINOv2 spreads them over a batch."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["batch_masks", "block_mask"]

MIN_BLOCK = 4
ASPECT = (0.3, 1 / 0.3)
TRIES = 10
_LOWEST, _HIGHEST = math.log(ASPECT[0]), math.log(ASPECT[1])


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
    return _as_arrays([_covered(num_masked, side=side, source=source, largest=largest)], side).reshape(side, side)


def _covered(num_masked: int, *, side: int, source: random.Random, largest: int | None = None) -> int:
    """The masked patches as the bits of a number, the first patch in the lowest; numbers of any size count quickly."""
    mask = 0
    limit = side * side // 2 if largest is None else largest
    while (count := mask.bit_count()) < num_masked:
        block = _next_block(mask, side, min(num_masked - count, limit), source)
        if block == 0:
            break
        mask |= block
    return mask


def _next_block(mask: int, side: int, most: int, source: random.Random) -> int:
    """A rectangle that adds patches, `most` at most; 0 where no try gives one."""
    for _ in range(TRIES):
        area = MIN_BLOCK + (most - MIN_BLOCK) * source.random()
        aspect = math.exp(_LOWEST + (_HIGHEST - _LOWEST) * source.random())
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if height >= side or width >= side:
            continue
        top, left = _below(side - height + 1, source), _below(side - width + 1, source)
        block = ((1 << width) - 1) * _rows(height, side) << (top * side + left)
        if 0 < (block & ~mask).bit_count() <= most:
            return block
    return 0


def _below(end: int, source: random.Random) -> int:
    """`source.randrange(end)`, number by number, in a quarter of its time."""
    num_bits = end.bit_length()
    while (number := source.getrandbits(num_bits)) >= end:
        pass
    return number


@cache
def _rows(num: int, side: int) -> int:
    """A number with a bit for each of so many rows of the grid."""
    return sum(1 << (side * row) for row in range(num))


def _as_arrays(masks: Sequence[int], side: int) -> NDArray[np.bool_]:
    """`(masks, side * side)` bool."""
    num_bytes = -(-side * side // 8)
    packed = np.frombuffer(b"".join(mask.to_bytes(num_bytes, "little") for mask in masks), np.uint8)
    bits = np.unpackbits(packed.reshape(len(masks), num_bytes), axis=1, count=side * side, bitorder="little")
    return bits.view(np.bool_)


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
        _covered(int(side * side * source.uniform(low, high)), side=side, source=source)
        for low, high in pairwise(edges.tolist())
    ]
    masks += [0] * (num_crops - num_masked_crops)
    source.shuffle(masks)
    return _as_arrays(masks, side)
