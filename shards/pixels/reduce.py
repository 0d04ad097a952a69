"""Gray pictures made smaller by averaging areas, and the luma of colour pictures, as OpenCV computes them but faster.

What was computed with either can be compared: on x86-64 both results are OpenCV's in every bit. OpenCV for 64-bit Arm
adds a row to the average without rounding its product, so an average that falls between two levels may differ there by
one level; those of this module are the same on every processor. With AVX2 683x512 pixels take 0.1 ms to average to a
square of 256, and 0.05 ms to make gray.
"""

from __future__ import annotations

import functools
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from shards.decode.native_decoder import Instructions, NativeUnavailableError, load

__all__ = ["area", "available", "luma"]

_LEVELS = get_args(Instructions)
_MAX_SIDE_PX = 1 << 24


@functools.cache
def available() -> bool:
    """Whether the extension can be used; found out once."""
    try:
        load()
    except NativeUnavailableError:
        return False
    return True


def area(gray: NDArray[np.uint8], size: tuple[int, int], *, instructions: Instructions = "best") -> NDArray[np.uint8]:
    """Average the area that each pixel of a smaller picture covers, without the interpreter lock.

    Equal to `cv2.resize(gray, size, interpolation=cv2.INTER_AREA)` unless both sides of the picture are multiples of
    those of the result: there OpenCV has other ways, which round differently.

    Args:
        gray: `(H, W)` uint8; a crop of a larger picture is read where it lies.
        size: Width and height of the result, as OpenCV orders them, neither larger than the picture's.
        instructions: `best` is what the processor has; the others are for tests.

    Returns:
        `(h, w)` uint8.

    Raises:
        NativeUnavailableError: The extension cannot be used.
        ValueError: Pixels of another shape or type, a side of 0 or above 2**24 pixels, or a larger result.
    """
    if gray.dtype != np.uint8 or gray.ndim != 2:
        raise ValueError(f"pixels are {gray.dtype} {gray.shape}, needs uint8 (H, W)")
    height, width = gray.shape
    if not (1 <= size[0] <= width <= _MAX_SIDE_PX and 1 <= size[1] <= height <= _MAX_SIDE_PX):
        raise ValueError(f"cannot reduce {width}x{height} pixels to {size[0]}x{size[1]}")
    source = gray if gray.strides[1] == 1 else np.ascontiguousarray(gray)
    out = np.empty((size[1], size[0]), np.uint8)
    status = load().bv_area(
        _LEVELS.index(instructions),
        source.ctypes.data,
        source.strides[0],
        height,
        width,
        out.ctypes.data,
        size[1],
        size[0],
    )
    if status:
        raise MemoryError
    return out


def luma(pixels: NDArray[np.uint8], *, instructions: Instructions = "best") -> NDArray[np.uint8]:
    """ITU-R 601 luma, without the interpreter lock: `cv2.COLOR_RGB2GRAY`, or `cv2.COLOR_RGBA2GRAY` of four channels.

    Args:
        pixels: `(H, W, 3)` or `(H, W, 4)` uint8, RGB first; a fourth channel is not looked at.
        instructions: `best` is what the processor has; the others are for tests.

    Returns:
        `(H, W)` uint8.

    Raises:
        NativeUnavailableError: The extension cannot be used.
        ValueError: Pixels of another shape or type, or none.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise ValueError(f"pixels are {pixels.dtype} {pixels.shape}, needs uint8 (H, W, 3) or (H, W, 4)")
    source = np.ascontiguousarray(pixels)
    out = np.empty(pixels.shape[:2], np.uint8)
    load().bv_luma(_LEVELS.index(instructions), source.ctypes.data, out.size, pixels.shape[2], out.ctypes.data)
    return out
