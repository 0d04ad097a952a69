"""Cut a real-valued box out of an image and resize it with an antialiased filter."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shards.decode.base import Crops

__all__ = ["region", "resample"]

_PILLOW: Final = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_OPENCV: Final = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_BLUR_LIMIT: Final = 2.2
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
        exact: Use Pillow's filters on the real-valued box; else OpenCV on the box rounded to whole pixels, with a
            three-tap blur (shrinking by up to 2.2) or an area average against aliasing, a third of the cost.

    Returns:
        `(size_px, size_px, C)` uint8.
    """
    if exact:
        return _with_pillow(image, box, crops)
    left, top = (int(np.rint(edge)) for edge in box[:2])
    right, bottom = int(np.rint(box[0] + box[2])), int(np.rint(box[1] + box[3]))
    left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
    part = image[top : max(bottom, top + 1), left : max(right, left + 1)]
    return _with_opencv(part, crops).reshape(crops.size_px, crops.size_px, image.shape[-1])


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


def _with_opencv(part: NDArray[np.uint8], crops: Crops) -> NDArray[np.uint8]:
    size, smooth = crops.size_px, _OPENCV[crops.interpolation]
    height, width = part.shape[:2]
    source: NDArray[Any] = part
    shrink_x, shrink_y = width / size, height / size
    if max(shrink_x, shrink_y) > _BLUR_LIMIT:
        source = cv2.resize(part, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    elif max(shrink_x, shrink_y) > 1:
        source = cv2.sepFilter2D(part, -1, _blur(shrink_x), _blur(shrink_y), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(source, (size, size), interpolation=smooth), np.uint8)


def _blur(shrink: float) -> NDArray[np.float32]:
    """Three taps which, followed by linear interpolation, have the variance of the triangle filter of that shrinkage.

    The triangle of half-width s has variance s^2 / 6, interpolation has 1 / 6 and `(a, 1 - 2a, a)` has 2a.
    """
    side = max(shrink * shrink - 1, 0) / 12
    return np.array([side, 1 - 2 * side, side], np.float32)
