"""Pixels out of Pillow images, without the copies that numpy would make, and arrays of pixels as raw images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, ImageChops

from ingest.readers.base import Pixels, RawImage, ReadOptions, colour_range, percentile_range, window_range
from shards.decode.opencv import rgb_of

Picture = NDArray[np.uint8]
"""`(H, W)` or `(H, W, 3)` uint8; gray pictures have no third axis, colour is RGB."""


def pixels_of(image: Image.Image) -> NDArray[Any]:
    """The pixels of a Pillow image; those of mode RGB three times faster than `np.asarray` gives them."""
    shared = shared_pixels(image)
    return np.asarray(image) if shared is None else rgb_of(shared)


def shared_pixels(image: Image.Image) -> Picture | None:
    """`(H, W, 4)`: Pillow's own memory of an RGB image, the fourth byte unused; None where it is not to be had."""
    if image.mode != "RGB" or not hasattr(image, "__arrow_c_array__"):  # Pillow before 11.2, pillow-simd
        return None
    try:
        shared = pa.array(image)
    except ValueError:  # larger than one block of Pillow's memory
        return None
    num_bytes = image.height * image.width * 4
    return np.frombuffer(shared.values.buffers()[1], np.uint8, num_bytes).reshape(image.height, image.width, 4)


def gray_or_rgb(image: Image.Image) -> Image.Image:
    """Gray or RGB; transparency is laid over black, palettes are looked up."""
    if _has_clear_colour(image):
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode in ("L", "RGB", "I;16", "I;16B", "I", "F"):
        return image
    if image.mode == "LA":
        return ImageChops.multiply(*image.split())
    if image.mode in ("1", "La"):  # the gray of `La` is laid over black already
        return image.convert("L") if image.mode == "1" else image.getchannel("L")
    if image.mode in ("RGBA", "PA", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        rgba = image.convert("RGBA")
        base = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(base, rgba).convert("RGB")
    return image.convert("RGB")


def _has_clear_colour(image: Image.Image) -> bool:
    """Whether one gray level or colour of an image without alpha stands for transparent (`tRNS` of a PNG)."""
    clear = image.info.get("transparency")
    return isinstance(clear, {"1": int, "L": int, "RGB": tuple}.get(image.mode, ()))


def raw_picture(
    pixels: Pixels,
    options: ReadOptions,
    *,
    frame: str = "",
    volume: bool = False,
    jpeg: bytes | None = None,
    shared: tuple[float, float] | None = None,
    colour_bits: int = 16,
    bit_depth: int = 0,
) -> RawImage:
    """A gray or RGB array as a raw image.

    What is deeper than 8 bits gets its stack's `shared` range, else its own. That of colour in words of 16 bits goes by
    the bits of its samples, `colour_bits` where the file states them: by percentiles its hues would change from image
    to image. `bit_depth` is that of the file's samples, where they have not the bits of the array's.
    """
    if pixels.dtype == np.uint8:
        return RawImage(pixels=pixels, frame=frame, part_of_volume=volume, jpeg=jpeg, bit_depth=bit_depth or 8)
    if pixels.dtype == np.bool_:
        return RawImage(pixels=pixels.astype(np.uint8) * 255, frame=frame, part_of_volume=volume, bit_depth=1)
    window = options.window if pixels.ndim == 2 else None
    if window:
        low, high = window_range(window)
    elif shared:
        low, high = shared
    elif pixels.ndim == 3 and pixels.dtype == np.uint16:
        low, high = colour_range(int(pixels.max(initial=0)), colour_bits)
    else:
        low, high = percentile_range(pixels)
    depth = bit_depth or pixels.dtype.itemsize * 8
    if not bit_depth and pixels.dtype == np.int32 and pixels.min(initial=0) >= 0 and pixels.max(initial=0) < 1 << 16:
        depth = 16
    return RawImage(
        pixels=pixels, frame=frame, part_of_volume=volume, bit_depth=depth, low=low, high=high, windowed=bool(window)
    )
