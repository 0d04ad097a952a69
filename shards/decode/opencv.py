"""What OpenCV does with 8-bit pixels, and the same in numpy where OpenCV is not installed.

OpenCV is large, and no result of this package depends on whether it is there. The numpy twins compute with whole
numbers, or with products that single precision holds exactly, so that they are OpenCV's in every bit; they take some
ten times as long. What has no twin raises an error that says what to install.
"""

from __future__ import annotations

import functools
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shards.errors import LibraryError

__all__ = ["find_opencv", "histogram", "luma", "mean_blocks", "require_opencv", "rgb_of", "scale_linear"]

Pixels = NDArray[np.uint8]

_RED, _GREEN, _BLUE = 9798, 19235, 3735
_LUMA_BITS: Final = 15
_COEFFICIENT: Final = 2048
"""OpenCV's interpolation weights are whole numbers of 2048ths (`INTER_RESIZE_COEF_BITS`)."""


@functools.cache
def find_opencv() -> Any:
    """The module `cv2`, or None where it is not installed."""
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def require_opencv(task: str) -> Any:
    """The module `cv2`.

    Args:
        task: What it is needed for; the error begins with it.

    Raises:
        LibraryError: It is not installed.
    """
    found = find_opencv()
    if found is None:
        raise LibraryError(f"{task} needs OpenCV, which is not installed", hint="pip install 'biovfm[opencv]'")
    return found


def rgb_of(pixels: Pixels) -> Pixels:
    """`(H, W, 4)` without its fourth channel, as `(H, W, 3)` of its own."""
    cv2 = find_opencv()
    if cv2 is None:
        return np.ascontiguousarray(pixels[..., :3])
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB), np.uint8)


def luma(pixels: Pixels) -> Pixels:
    """`(H, W)`: ITU-R 601 luma of RGB, or of RGB and a fourth channel."""
    cv2 = find_opencv()
    if cv2 is not None:
        code = cv2.COLOR_RGB2GRAY if pixels.shape[2] == 3 else cv2.COLOR_RGBA2GRAY
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), code), np.uint8)
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return ((red * _RED + green * _GREEN + blue * _BLUE + (1 << (_LUMA_BITS - 1))) >> _LUMA_BITS).astype(np.uint8)


def histogram(gray: Pixels) -> NDArray[np.float64]:
    """`(256,)`: how many pixels have each value."""
    cv2 = find_opencv()
    if cv2 is None:
        return np.bincount(gray.ravel(), minlength=256).astype(np.float64)
    return np.asarray(cv2.calcHist([gray], [0], None, [256], [0, 256]), np.float64).ravel()


def mean_blocks(gray: Pixels, size: tuple[int, int]) -> Pixels:
    """Average whole blocks of pixels (`cv2.INTER_AREA`).

    Args:
        gray: `(H, W)` uint8; both sides are multiples of those of the result.
        size: Width and height of the result.
    """
    cv2 = find_opencv()
    if cv2 is not None:
        return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.uint8)
    rows, columns = gray.shape[0] // size[1], gray.shape[1] // size[0]
    sums = gray.reshape(size[1], rows, size[0], columns).sum(axis=(1, 3), dtype=np.int32)
    if rows == columns == 1:
        return gray.copy()
    if rows == columns == 2:
        return np.asarray((sums + 2) >> 2, np.uint8)  # OpenCV rounds these up, all others to even
    return np.asarray(np.rint(sums.astype(np.float32) * np.float32(1 / (rows * columns))), np.uint8)


def scale_linear(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Bring a picture to another size by linear interpolation, without antialiasing (`cv2.INTER_LINEAR`).

    Args:
        pixels: `(H, W)` or `(H, W, C)` uint8.
        size: Width and height of the result.
    """
    cv2 = find_opencv()
    if cv2 is not None:
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    if pixels.ndim == 3:
        planes = [scale_linear(pixels[..., channel], size) for channel in range(pixels.shape[2])]
        return np.stack(planes, axis=-1)
    left, across = _steps(pixels.shape[1], size[0])
    outside = (left < 0) | (left >= pixels.shape[1] - 1)
    left, across = np.clip(left, 0, pixels.shape[1] - 1), np.where(outside, np.float32(0), across)
    before, after = _weights(across)
    rows = pixels.astype(np.int32)
    rows = rows[:, left] * before + rows[:, np.minimum(left + 1, pixels.shape[1] - 1)] * after
    top, down = _steps(pixels.shape[0], size[1])
    first, second = (rows[np.clip(top + step, 0, pixels.shape[0] - 1)] >> 4 for step in (0, 1))
    upper, lower = _weights(down[:, None])
    return ((((upper * first) >> 16) + ((lower * second) >> 16) + 2) >> 2).astype(np.uint8)


def _steps(length: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """For each output, the input before it and how far behind that it lies."""
    place = ((np.arange(wanted) + 0.5) * (1 / (wanted / length)) - 0.5).astype(np.float32)
    before = np.floor(place)
    return before.astype(np.int64), place - before


def _weights(part: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    first = np.rint((np.float32(1) - part) * np.float32(_COEFFICIENT)).astype(np.int32)
    return first, np.rint(part * np.float32(_COEFFICIENT)).astype(np.int32)
