"""How bare arrays become images: two axes are one image, a third of size 3 is colour, all others count."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ingest.raw.items import RejectError
from ingest.readers.base import RawImage, ReadOptions, chosen_frames, percentile_range, window_range


def array_images(
    array: Any,
    options: ReadOptions,
    *,
    prefix: str = "",
    load: Callable[[Any], Any] = np.asarray,
    group: str = "",
    one_range: bool = True,
) -> Iterator[RawImage]:
    """The images of `(…, H, W)`, `(…, H, W, 1)` or `(…, H, W, 3)`.

    Args:
        array: An array, or what slices like one (HDF5).
        options: Frame rule and window.
        prefix: Put before the frame number.
        load: Makes an array of a slice.
        group: What the images belong to, where the file says so.
        one_range: Whether gray images that are not 8-bit share one intensity range: that of a sample of all.
    """
    shape = tuple(int(n) for n in array.shape)
    if len(shape) < 2 or array.dtype.kind not in "uifb":
        raise RejectError("no_image", "not an array of images")
    tail = 3 if len(shape) >= 3 and shape[-1] in (1, 3, 4) and shape[-2] > 4 else 2
    height, width = shape[-tail : len(shape) - tail + 2]
    if height * width > options.limits.max_pixels:
        raise RejectError("decompression_bomb", f"{width}x{height} pixels")
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
    parts = [load(array[tuple(int(i) for i in np.unravel_index(number, leading))]).ravel() for number in picked]
    return percentile_range(np.concatenate(parts))
