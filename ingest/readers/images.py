"""JPEG, PNG, TIFF, BMP, GIF, PNM, JPEG 2000 and WebP; several pages or frames are several images.

Pillow decodes; plain JPEGs go to libjpeg-turbo itself where no Pillow image is needed. TIFFs that Pillow does not know
(BigTIFF of odd layouts, 32-bit, planar, JPEG-XR …) go to tifffile.
Only pixels leave this reader: metadata segments are read for the orientation alone.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, percentile_range, window_range
from ingest.readers.pillow import pixels_of

Image.MAX_IMAGE_PIXELS = None  # the limit of the settings is checked on the header, before any pixel is decoded

_PLUGINS: Final = (Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin)  # Pillow loads these late
_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "WEBP")
_ORIENTATION: Final = 0x0112
_TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The images of a file; frames are `p0000`, `p0001` … where there are several."""
    data = raw.read()
    if not data:
        raise RejectError("empty_file")
    if data[:4] in _TIFF_MAGIC:
        yield from _read_tiff(data, options)
        return
    with _open(data) as image:
        _check_size(image.size, options)
        count = 1 if image.format in ("JPEG", "MPO") else int(getattr(image, "n_frames", 1))
        if count == 1:
            yield _one(image, data, options)
            return
        for number in chosen_frames(count, options.frames):
            image.seek(number)
            yield _picture(np.asarray(_plain(image)), options, frame=f"p{number:04d}", volume=True)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RejectError("unreadable", type(error).__name__) from error


def _check_size(size: tuple[int, int], options: ReadOptions) -> None:
    if size[0] * size[1] > options.limits.max_pixels:
        raise RejectError("decompression_bomb", f"{size[0]}x{size[1]} pixels")


def _one(image: Image.Image, data: bytes, options: ReadOptions) -> RawImage:
    turned = _orientation(image) != 1
    keeps = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB") and not turned
    if keeps and options.straight and image.format == "JPEG":
        pixels = _plain_jpeg(data, gray=image.mode == "L")
        if pixels is not None:
            return _picture(pixels, options, jpeg=data)
    plain = _plain(ImageOps.exif_transpose(image) if turned else image)
    found = _picture(pixels_of(plain), options, jpeg=data if keeps else None)
    return replace(found, source=plain) if plain.mode in ("L", "RGB") else found


def _plain_jpeg(data: bytes, *, gray: bool) -> Pixels | None:
    """The pixels of a JPEG straight from libjpeg-turbo, half as costly as by way of Pillow.

    They are Pillow's where both libraries carry a libjpeg-turbo with the same inverse transform and upsampling, as all
    their wheels do today (a test compares them); no standard asks for that.

    Returns:
        `(H, W)` or `(H, W, 3)` uint8; None where libjpeg-turbo has anything to complain of: Pillow decides then.
    """
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "GRAY" if gray else "RGB")
    except ValueError:
        return None
    return pixels[..., 0] if gray else pixels


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (ValueError, TypeError, OSError, SyntaxError, KeyError):
        return 1


def _plain(image: Image.Image) -> Image.Image:
    """Gray or RGB; transparency is laid over black, palettes are looked up."""
    if image.mode in ("L", "RGB", "I;16", "I;16B", "I", "F"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("LA", "La"):
        return image.convert("LA").getchannel("L")
    if image.mode in ("RGBA", "PA", "RGBa") or (image.mode == "P" and "transparency" in image.info):
        rgba = image.convert("RGBA")
        base = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(base, rgba).convert("RGB")
    return image.convert("RGB")


def _picture(
    pixels: Pixels, options: ReadOptions, *, frame: str = "", volume: bool = False, jpeg: bytes | None = None
) -> RawImage:
    """A gray or RGB array as a raw image; deeper than 8 bits gets a range."""
    if pixels.dtype == np.uint8:
        return RawImage(pixels=pixels, frame=frame, part_of_volume=volume, jpeg=jpeg)
    if pixels.dtype == np.bool_:
        return RawImage(pixels=pixels.astype(np.uint8) * 255, frame=frame, part_of_volume=volume, bit_depth=1)
    window = options.window if pixels.ndim == 2 else None
    low, high = window_range(window) if window else percentile_range(pixels)
    depth = pixels.dtype.itemsize * 8
    if pixels.dtype == np.int32 and pixels.min(initial=0) >= 0 and pixels.max(initial=0) < 1 << 16:
        depth = 16
    return RawImage(
        pixels=pixels, frame=frame, part_of_volume=volume, bit_depth=depth, low=low, high=high, windowed=bool(window)
    )


def _read_tiff(data: bytes, options: ReadOptions) -> Iterator[RawImage]:
    """Pages of a TIFF. Reduced-resolution copies (pyramids, thumbnails) are no images of their own."""
    import tifffile

    try:
        tiff = tifffile.TiffFile(io.BytesIO(data))
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, struct.error) as error:
        raise RejectError("unreadable", type(error).__name__) from error
    with tiff:
        pages = [page for page in tiff.pages if not getattr(page, "is_reduced", False)]
        several = len(pages) > 1
        for number in chosen_frames(len(pages), options.frames):
            page: Any = pages[number]
            _check_size((page.imagewidth, page.imagelength), options)
            planes = _tiff_planes(page)
            for plane, pixels in enumerate(planes):
                frame = f"p{number:04d}" if several else ""
                frame += f"z{plane:04d}" if len(planes) > 1 else ""
                yield _picture(pixels, options, frame=frame, volume=bool(frame))


def _tiff_planes(page: Any) -> list[Pixels]:
    """The gray or RGB planes of a page, upright."""
    import tifffile

    pixels = page.asarray()
    photometric = page.photometric
    if photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None:
        pixels = (np.asarray(page.colormap)[:, pixels] >> 8).astype(np.uint8)
        pixels = np.moveaxis(pixels, 0, -1)
    elif pixels.ndim == 3 and pixels.shape[-1] not in (3, 4) and pixels.shape[0] in (3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels = ~pixels if pixels.dtype.kind in "ub" else -pixels
    if photometric == tifffile.PHOTOMETRIC.SEPARATED and pixels.ndim == 3 and pixels.shape[-1] == 4:
        pixels = np.asarray(Image.fromarray(pixels, "CMYK").convert("RGB"))
    if pixels.ndim == 3 and pixels.shape[-1] in (1, 2):
        pixels = pixels[..., 0]
    elif pixels.ndim == 3 and pixels.shape[-1] >= 4:
        pixels = pixels[..., :3]
    flat = [pixels] if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3) else list(pixels)
    return [_upright(plane, page) for plane in flat]


def _upright(pixels: Pixels, page: Any) -> Pixels:
    tag = page.tags.get("Orientation")
    turn = int(tag.value) if tag else 1
    if turn >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(turn)
    return np.ascontiguousarray(np.flip(pixels, flips) if flips else pixels)
