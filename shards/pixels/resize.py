"""Bring a whole picture to another size with the kernels of the native decoder."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from shards.decode.native_decoder import Instructions, load

__all__ = ["resize"]

_LEVELS = get_args(Instructions)
_MAX_SIDE_PX = 1 << 20


def resize(
    pixels: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    interpolation: Literal["bilinear", "bicubic"] = "bicubic",
    instructions: Instructions = "best",
) -> NDArray[np.uint8]:
    """Resize with an antialiased filter, as Pillow does it up to rounding, without the interpreter lock.

    Rows come first, then columns; Pillow begins with the columns of pictures much taller than wide, and rounds
    differently there. On every processor and with every instruction set the result is the same in every bit. A
    picture of 1 megapixel takes little more than 1 ms.

    Args:
        pixels: `(H, W)` or `(H, W, 3)` uint8.
        size: Width and height of the result, as Pillow orders them.
        interpolation: The filter.
        instructions: `best` is what the processor has; the others are for tests.

    Returns:
        `(h, w)` or `(h, w, 3)` uint8.

    Raises:
        NativeUnavailableError: The extension cannot be used.
        ValueError: Pixels of another shape or type, or a side of 0 or above 2**20 pixels.
    """
    gray = pixels.ndim == 2
    if pixels.dtype != np.uint8 or not (gray or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, needs uint8 (H, W) or (H, W, 3)")
    if not all(1 <= side <= _MAX_SIDE_PX for side in (*pixels.shape[:2], *size)):
        raise ValueError(f"cannot bring {pixels.shape[1]}x{pixels.shape[0]} pixels to {size[0]}x{size[1]}")
    source = np.ascontiguousarray(pixels)
    out = np.empty((size[1], size[0], *pixels.shape[2:]), np.uint8)
    status = load().bv_resize(
        _LEVELS.index(instructions),
        source.ctypes.data,
        source.shape[0],
        source.shape[1],
        1 if gray else 3,
        out.ctypes.data,
        size[1],
        size[0],
        interpolation == "bicubic",
    )
    if status:
        raise MemoryError
    return out
