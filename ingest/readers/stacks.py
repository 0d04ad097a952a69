"""How bare arrays become images: two axes are one image, a third of size 3 is colour, all others count.

The source may name the axes in another order (`ingest.source.layout.FrameRule.axes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from ingest.raw.budget import claim_array
from ingest.raw.items import RejectError
from ingest.readers.base import RawImage, ReadOptions, chosen_frames, percentile_range, window_range

_COLOURS = (1, 3, 4)
_LEAST_SIDE = 28
"""Images with a shorter side are not kept by default: an axis as short as that is none of an image."""


class _Turned:
    """An array whose axes are read as if they lay in the order: what counts, H, W, C."""

    def __init__(self, array: Any, axes: str) -> None:
        self._array = array
        self._counting = [at for at, axis in enumerate(axes) if axis not in "HWC"]
        self._plane = [axis for axis in axes if axis in "HWC"]
        self._order = [axis for axis in "HWC" if axis in axes]
        self.dtype = array.dtype
        self.shape = tuple(array.shape[at] for at in [*self._counting, *map(axes.index, self._order)])

    def __getitem__(self, place: Any) -> Any:
        index: list[Any] = [slice(None)] * (len(self._counting) + len(self._plane))
        for at, number in zip(self._counting, () if place is Ellipsis else place, strict=False):
            index[at] = number
        return np.transpose(self._array[tuple(index)], [self._plane.index(axis) for axis in self._order])


def _fitting_axes(shape: Any, orders: tuple[str, ...]) -> str:
    """The first order that an array of this shape can have; empty where none is named.

    Raises:
        RejectError: Orders are named, and none fits.
    """
    for axes in orders:
        if len(axes) == len(shape) and ("C" not in axes or shape[axes.index("C")] in _COLOURS):
            return axes
    if orders:
        raise RejectError("unsupported", "x".join(map(str, shape)) + " fits no order of axes")
    return ""


_COPIES: Final = 3
"""Arrays of an image's size that are held while it becomes a picture."""

_RANGE_VALUES: Final = 1 << 18
"""Values of each of the images from which a shared range is estimated."""


def guessed_axes(shape: tuple[int, ...], dtype: Any) -> tuple[str, bool]:
    """The order of the axes where the usual one cannot be right, and whether what counts are channels.

    - `(…, 3, H, W)`, and `(3, H, W)` of bytes, is colour with its channels first, as torch keeps it.
    - `(…, H, W, 4)` that is no bytes holds four measurements (the sequences of BraTS), not colour and alpha.
    - `(…, H, W, n)` with fewer `n` than an image has pixels on a side is a stack along its last axis.

    Returns:
        One letter per axis, H, W and C as in `FrameRule.axes`; empty for `(…, H, W)` and `(…, H, W, 1 or 3)`.
    """
    if len(shape) < 3:
        return "", False
    height, width, last = shape[-3:]
    others = "ABDEFG"[: len(shape) - 3]
    is_bytes = dtype == np.uint8
    if last == 4 and not is_bytes and min(height, width) > 4:
        return f"{others}HWZ", True
    if last in _COLOURS and width > 4:
        return "", False
    if height in (3, 4) and (len(shape) > 3 or is_bytes) and (height == 3 or is_bytes) and min(width, last) > 4:
        return f"{others}CHW", False
    if last < _LEAST_SIDE <= min(height, width):
        return f"{others}HWZ", last == 2
    return "", False


def array_images(
    array: Any,
    options: ReadOptions,
    *,
    prefix: str = "",
    load: Callable[[Any], Any] = np.asarray,
    group: str = "",
    one_range: bool = True,
) -> Iterator[RawImage]:
    """The images of `(…, H, W)`, `(…, H, W, 1)` or `(…, H, W, 3)`, or in the order of axes that the source names.

    Args:
        array: An array, or what slices like one (HDF5).
        options: Frame rule and window.
        prefix: Put before the frame number.
        load: Makes an array of a slice.
        group: What the images belong to, where the file says so.
        one_range: Whether gray images that are not 8-bit share one intensity range: that of a sample of all.
    """
    axes = _fitting_axes(array.shape, options.frames.axes)
    if not axes:
        axes, are_channels = guessed_axes(tuple(int(n) for n in array.shape), array.dtype)
        one_range = one_range and not are_channels
    if axes:
        array = _Turned(array, axes)
    shape = tuple(int(n) for n in array.shape)
    if len(shape) < 2 or min(shape) < 1 or array.dtype.kind not in "uifb":
        raise RejectError("no_image", "not an array of images")
    colour = "C" in axes if axes else len(shape) >= 3 and shape[-1] in _COLOURS and shape[-2] > 4
    tail = 3 if colour else 2
    height, width = shape[-tail : len(shape) - tail + 2]
    if height * width > options.limits.max_pixels:
        raise RejectError("decompression_bomb", f"{width}x{height} pixels")
    claim_array(shape[-tail:], array.dtype, options.limits, "an image", copies=_COPIES)
    leading = shape[: len(shape) - tail]
    count = int(np.prod(leading, dtype=np.int64)) if leading else 1
    shared = _shared_range(array, leading, count, load, options) if one_range and count > 1 else None
    for number in chosen_frames(count, options.frames):
        place = np.unravel_index(number, leading) if leading else ()
        pixels = load(array[tuple(int(i) for i in place)] if leading else array[...])
        frame = f"{prefix}f{number:06d}" if leading else prefix.rstrip("-")
        yield _image(pixels, options, frame=frame, several=bool(leading), shared=shared, group=group)


def _image(
    pixels: Any, options: ReadOptions, *, frame: str, several: bool, shared: tuple[float, float] | None, group: str
) -> RawImage:
    if pixels.ndim == 3 and pixels.shape[-1] in (1, 4):
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    depth = pixels.dtype.itemsize * 8
    low = high = None
    windowed = False
    if pixels.dtype != np.uint8:
        windowed = options.window is not None and pixels.ndim == 2
        if options.window is not None and pixels.ndim == 2:
            low, high = window_range(options.window)
        elif pixels.ndim == 3 and pixels.dtype.kind == "f" and np.nanmin(pixels) >= 0 and np.nanmax(pixels) <= 1:
            low, high = 0.0, 1.0
        else:
            low, high = shared or percentile_range(pixels)
    return RawImage(
        pixels=pixels,
        frame=frame,
        bit_depth=depth,
        low=low,
        high=high,
        windowed=windowed,
        part_of_volume=several,
        group=group,
    )


def _shared_range(
    array: Any, leading: tuple[int, ...], count: int, load: Callable[[Any], Any], options: ReadOptions
) -> tuple[float, float] | None:
    """One range for a stack, from at most 32 images spread over it; None where it is not needed."""
    if array.dtype == np.uint8 or options.window is not None or array.dtype == np.bool_:
        return None
    picked = sorted({int(i) for i in np.linspace(0, count - 1, 32)})
    parts = []
    for number in picked:
        values = load(array[tuple(int(i) for i in np.unravel_index(number, leading))]).ravel()
        parts.append(values[:: max(1, values.size // _RANGE_VALUES)].copy())
    return percentile_range(np.concatenate(parts))
