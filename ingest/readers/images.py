"""JPEG, MPO, PNG, TIFF, BMP, GIF, PNM, JPEG 2000 and WebP; several pages or frames are several images.

Pillow decodes; plain JPEGs go to libjpeg-turbo itself where no Pillow image is needed, colour of more than 8 bits per
sample to OpenCV, TIFFs to tifffile. A PNG whose side chunks are damaged is read without them.
Only pixels leave this reader: metadata segments are read for the orientation alone.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin

from ingest.raw.budget import claim
from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, failed_image, upright
from ingest.readers.deep_colour import deep_colour, is_deep, may_be_turned, sound_png
from ingest.readers.multi_picture import Picture, further_pictures, open_jpeg
from ingest.readers.pillow import gray_or_rgb, pixels_of, raw_picture
from ingest.readers.sample_bits import sample_bits
from ingest.readers.tiff import MAGIC, read_tiff

Image.MAX_IMAGE_PIXELS = None  # the limit of the settings is checked on the header, before any pixel is decoded

_PLUGINS: Final = (Jpeg2KImagePlugin, TiffImagePlugin, WebPImagePlugin)  # Pillow loads these late
_FORMATS: Final = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "WEBP")
_ORIENTATION: Final = 0x0112
_BYTES_PER_PIXEL: Final = {"1": 4, "L": 4, "P": 10, "RGB": 10, "YCbCr": 10, "CMYK": 14, "I;16": 10, "I;16B": 10}
"""What a pixel takes until it is a picture, by mode: the image of Pillow (32 bits for colour), the array, its luma."""

_MOST_BYTES_PER_PIXEL: Final = 25
"""The same where transparency is laid over black, or values have 32 bits."""

_BYTES_OF_FRAMES: Final = 16
"""Bytes per pixel of the frames that Pillow keeps of a moving picture."""

_MOST_UNREACHABLE: Final = 2
"""Frames in a row that cannot be reached, after which a file is not read further."""

_BROKEN_FRAME: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError)
"""What Pillow raises of a frame that is damaged or not there."""

_PNM_MAGIC: Final = re.compile(rb"P[1-6][\s#]")
_PNM_HEADER: Final = re.compile(
    rb"(?:P[14](?:(?:\s|#[^\r\n]*[\r\n])+\d+){2}|P[2356](?:(?:\s|#[^\r\n]*[\r\n])+\d+){3})[\s#]"
)
_PNM_HEADER_BYTES: Final = 1 << 16
"""The magic number, width, height and largest value, with comments before them, within so many bytes (ppm.5)."""

_DEEP_BYTES: Final = 32
"""Bytes per pixel that colour of 16 bits takes, with what laying its transparency over black needs."""


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The images of a file; frames are `p0000`, `p0001` … where there are several."""
    data = raw.read()
    if not data:
        raise RejectError("empty_file")
    if data[:4] in MAGIC:
        yield from read_tiff(data, options)
        return
    image, data = _open(data)
    with image:
        _check_size(image.size, options)
        _check_budget(image, data, options)
        bits = 1 if image.mode == "1" else sample_bits(data)
        if image.format in ("JPEG", "MPO"):
            yield from _jpegs(image, data, options)
            return
        count = int(getattr(image, "n_frames", 1))
        if count == 1:
            yield _one(image, data, options, bits)
            return
        yield from _frames(image, count, options, bits)


def _jpegs(image: Image.Image, data: bytes, options: ReadOptions) -> Iterator[RawImage]:
    """The picture of a JPEG, or the chosen ones of several of equal rank in a file (MPO); the others are rejects."""
    further = further_pictures(data) if image.format == "MPO" else []
    ranked: list[Picture | None] = [None, *(picture for picture in further if not picture.fault)]
    for number in chosen_frames(len(ranked), options.frames):
        picture = ranked[number]
        if picture is None:
            first = _one(image, data, options)
            yield first if len(ranked) == 1 else replace(first, frame="p0000", part_of_volume=True)
        else:
            yield _further(picture, data[picture.place], options)
    for picture in further:
        if picture.fault:
            yield failed_image(picture.fault, picture.detail, frame=picture.frame)


def _further(picture: Picture, data: bytes, options: ReadOptions) -> RawImage:
    """A picture behind the first of a file; one that cannot be decoded costs itself alone."""
    try:
        with open_jpeg(data) as image:
            _check_budget(image, data, options)
            return replace(_one(image, data, options), frame=picture.frame, part_of_volume=True)
    except RejectError as error:
        return failed_image(error.reason, error.detail, frame=picture.frame)
    except _BROKEN_FRAME as error:
        return failed_image("undecodable", type(error).__name__, frame=picture.frame)


def _frames(image: Image.Image, count: int, options: ReadOptions, bits: int) -> Iterator[RawImage]:
    """The chosen frames; the rest of a file in which two in a row cannot be reached is one reject.

    A header may state billions of frames that no bytes follow.
    """
    num_unreachable = 0
    for number in chosen_frames(count, options.frames):
        num_unreachable = 0 if _is_reachable(image, number) else num_unreachable + 1
        if num_unreachable == _MOST_UNREACHABLE:
            yield failed_image("undecodable", "no further frame can be reached", frame=f"p{number:04d}")
            return
        yield _frame(image, number, options, bits)


def _is_reachable(image: Image.Image, number: int) -> bool:
    try:
        image.seek(number)
    except _BROKEN_FRAME:
        return False
    return True


def _frame(image: Image.Image, number: int, options: ReadOptions, bits: int) -> RawImage:
    """One of several frames; one that cannot be decoded costs that frame alone."""
    frame = f"p{number:04d}"
    try:
        image.seek(number)
        _check_size(image.size, options)  # a frame of a GIF may lie outside of the screen that the header states
        pixels = np.asarray(gray_or_rgb(image))
    except RejectError as error:
        return failed_image(error.reason, error.detail, frame=frame)
    except _BROKEN_FRAME as error:
        return failed_image("undecodable", type(error).__name__, frame=frame)
    return raw_picture(pixels, options, frame=frame, volume=True, bit_depth=bits)


def _open(data: bytes) -> tuple[Image.Image, bytes]:
    """The file as a Pillow image, and its bytes: those of a PNG without its damaged chunks."""
    _check_pnm_header(data)
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS), data
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        sound = sound_png(data)
        if sound is not None and sound != data:
            return _open(sound)
        raise RejectError("unreadable", type(error).__name__) from error


def _check_pnm_header(data: bytes) -> None:
    """Raise RejectError where the header of a PNM goes on and on: Pillow reads its comments byte by byte."""
    if _PNM_MAGIC.match(data) and len(data) > _PNM_HEADER_BYTES and not _PNM_HEADER.match(data[:_PNM_HEADER_BYTES]):
        raise RejectError("unreadable", f"a header of more than {_PNM_HEADER_BYTES} bytes")


def _check_size(size: tuple[int, int], options: ReadOptions) -> None:
    if size[0] * size[1] > options.limits.max_pixels:
        raise RejectError("decompression_bomb", f"{size[0]}x{size[1]} pixels")


def _check_budget(image: Image.Image, data: bytes, options: ReadOptions) -> None:
    """Raise RejectError where decoding and the arrays that are made of it would take too much memory."""
    width, height = image.size
    per_pixel = _BYTES_PER_PIXEL.get(image.mode, _MOST_BYTES_PER_PIXEL)
    if "transparency" in image.info:
        per_pixel = _MOST_BYTES_PER_PIXEL
    if image.format in ("GIF", "WEBP", "PNG") and getattr(image, "is_animated", False):
        per_pixel += _BYTES_OF_FRAMES
    if image.format == "JPEG2000":
        per_pixel += 4 * len(image.getbands())  # OpenJPEG holds 32 bits per value
    if is_deep(data):
        per_pixel += _DEEP_BYTES
    claim(width * height * per_pixel, options.limits, "an image")


def _one(image: Image.Image, data: bytes, options: ReadOptions, bits: int = 8) -> RawImage:
    deep = deep_colour(data) if image.format in ("PNG", "JPEG2000") else None
    if deep is not None:
        turn = _orientation(image) if may_be_turned(data) else 1  # looking for it decodes the PNG once more
        return raw_picture(upright(deep, turn), options, colour_bits=bits, bit_depth=bits)
    if image.format not in ("JPEG", "MPO"):
        image.load()  # else looking for the orientation decodes PNGs, and hides that their pixels are damaged
    turned = _orientation(image) != 1
    keeps = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB") and not turned
    if keeps and options.straight and image.format == "JPEG":
        pixels = _plain_jpeg(data, gray=image.mode == "L")
        if pixels is not None:
            return raw_picture(pixels, options, jpeg=data)
    plain = gray_or_rgb(ImageOps.exif_transpose(image) if turned else image)
    found = raw_picture(pixels_of(plain), options, jpeg=data if keeps else None, bit_depth=bits)
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
