"""Cut a real-valued box out of an image and resize it with an antialiased filter."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.decode.base import Crops
from shards.decode.opencv import require_opencv

__all__ = ["region", "resample"]

_PILLOW: Final = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_FAST: Final = "the fast way of resizing"
_BLUR_LIMIT: Final = 2.2
_BLOCK_SHRINK: Final = 1.4
"""Shrinking by more than the limit averages blocks first, so that about this much is left for the blur."""
_REACH: Final = {"bilinear": 1.0, "bicubic": 2.0}


def region(box: NDArray[np.float64], width: int, height: int, crops: Crops) -> tuple[int, int, int, int]:
    """The pixels (left, top, right, bottom) that a crop's filter may look at.

    A random crop is cut first, so its filter ends at the box; a centre crop is resized first, so its filter sees the
    neighbours.
    """
    x, y, w, h = box.tolist()
    reach_x = reach_y = 0.0
    if crops.kind == "center":
        reach = _REACH[crops.interpolation]
        reach_x, reach_y = (reach * max(1.0, side / crops.size_px) + 1 for side in (w, h))
    left, top = max(0, int(np.floor(x - reach_x))), max(0, int(np.floor(y - reach_y)))
    right, bottom = (
        max(start + 1, min(limit, int(np.ceil(end))))
        for start, limit, end in ((left, width, x + w + reach_x), (top, height, y + h + reach_y))
    )
    return left, top, right, bottom


def resample(image: NDArray[np.uint8], box: NDArray[np.float64], crops: Crops, *, exact: bool) -> NDArray[np.uint8]:
    """Resize `box` of an image to the square that `crops` asks for.

    Args:
        image: `(H, W, C)` uint8.
        box: Left, top, width, height in pixels of `image`.
        crops: Side, filter and kind of the crop.
        exact: Use Pillow's filters; else OpenCV, which must be there, with block averages and a three-tap blur of the
            same variance against aliasing, a third of the cost.

    Returns:
        `(size_px, size_px, C)` uint8.
    """
    if exact:
        return _with_pillow(image, box, crops)
    cv2 = require_opencv(_FAST)
    size, smooth = crops.size_px, cv2.INTER_LINEAR if crops.interpolation == "bilinear" else cv2.INTER_CUBIC
    height, width, channels = image.shape
    wide, high = round(width * size / box[2]), round(height * size / box[3])
    if crops.kind == "center" and max(wide, high) <= 2 * size:
        left, top = round(box[0] * size / box[2]), round(box[1] * size / box[3])
        resized = _with_opencv(image, np.array([0, 0, width, height]), (wide, high), smooth)
        return resized[top : top + size, left : left + size].reshape(size, size, channels)
    left, top, right, bottom = region(box, width, height, crops)
    part = image[top:bottom, left:right]
    return _with_opencv(part, box - (left, top, 0, 0), (size, size), smooth).reshape(size, size, channels)


def _with_pillow(image: NDArray[np.uint8], box: NDArray[np.float64], crops: Crops) -> NDArray[np.uint8]:
    left, top, right, bottom = region(box, image.shape[1], image.shape[0], crops)
    part = Image.fromarray(np.ascontiguousarray(np.squeeze(image[top:bottom, left:right], axis=_single(image))))
    inner = (box[0] - left, box[1] - top, box[0] - left + box[2], box[1] - top + box[3])
    inner = (*inner[:2], min(inner[2], float(right - left)), min(inner[3], float(bottom - top)))
    resized = part.resize((crops.size_px, crops.size_px), _PILLOW[crops.interpolation], box=inner)
    return np.asarray(resized).reshape(crops.size_px, crops.size_px, image.shape[-1])


def _single(image: NDArray[np.uint8]) -> Any:
    """The axis to drop from a one-channel image."""
    return (2,) if image.shape[-1] == 1 else ()


def _with_opencv(
    part: NDArray[np.uint8], box: NDArray[np.float64], size: tuple[int, int], smooth: int
) -> NDArray[np.uint8]:
    """Average whole blocks where it shrinks much, blur, then interpolate at the real-valued grid.

    Args:
        part: `(H, W, C)` uint8.
        box: Left, top, width and height in pixels of `part`.
        size: Width and height of the result.
        smooth: OpenCV's interpolation.
    """
    cv2 = require_opencv(_FAST)
    pairs = list(zip(box[2:].tolist(), size, strict=True))
    blocks = [round(side / to / _BLOCK_SHRINK) if side > _BLUR_LIMIT * to else 1 for side, to in pairs]
    source: NDArray[Any] = _average(part, *blocks)
    left, top, width, height = (box / (*blocks, *blocks)).tolist()
    shrink_x, shrink_y = width / size[0], height / size[1]
    if max(shrink_x, shrink_y) > 1:
        taps = _blur(shrink_x, blocks[0]), _blur(shrink_y, blocks[1])
        source = cv2.sepFilter2D(source, -1, *taps, borderType=cv2.BORDER_REPLICATE)
    if (left, top, width, height) == (0, 0, source.shape[1], source.shape[0]):
        return np.asarray(cv2.resize(source, size, interpolation=smooth), np.uint8)
    grid = np.array([[shrink_x, 0, left + shrink_x / 2 - 0.5], [0, shrink_y, top + shrink_y / 2 - 0.5]])
    flags = smooth | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(source, grid, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _average(part: NDArray[np.uint8], wide: int, high: int) -> NDArray[Any]:
    """Means of blocks of `wide` x `high` pixels; the last blocks are filled up with the edge."""
    if wide == high == 1:
        return part
    cv2 = require_opencv(_FAST)
    columns, rows = -(-part.shape[1] // wide), -(-part.shape[0] // high)
    missing = (0, rows * high - part.shape[0], 0, columns * wide - part.shape[1])
    full = cv2.copyMakeBorder(part, *missing, cv2.BORDER_REPLICATE) if any(missing) else part
    return np.asarray(cv2.resize(full, (columns, rows), interpolation=cv2.INTER_AREA))


def _blur(shrink: float, block: int) -> NDArray[np.float32]:
    """Three taps which, with blocks before and interpolation after, have the variance of the triangle filter.

    It serves the cubic filter too, where it measures best. The triangle of half-width s has variance s^2 / 6,
    interpolation 1 / 6, blocks of k pixels (1 - 1 / k^2) / 12 in block units, and `(a, 1 - 2a, a)` has 2a.
    """
    side = max((shrink * shrink - 1) / 12 - (1 - 1 / block**2) / 24, 0)
    return np.array([side, 1 - 2 * side, side], np.float32)
