"""Decoding without a compiler: simplejpeg and OpenCV for pixels, Pillow where they must be exact.

Where OpenCV is not installed, Pillow takes its part: it resizes in both modes, and keeps 8 of the 16 bits of colour.

Every library call here releases the interpreter lock, so threads that call `LibraryDecoder.decode` run side by side.
Cost of one 0.25-megapixel JPEG: 0.9 ms to decode, 0.2 ms (`fast`) or 2 ms (`exact`) to resize.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from shards.decode.base import MAX_PIXELS, Blob, Crops, Mode, Status, slot_channels
from shards.decode.boxes import Boxes, crop_boxes
from shards.decode.header import ImageHeader, read_header
from shards.decode.opencv import find_opencv, luma
from shards.decode.resample import resample

__all__ = ["LibraryDecoder"]

Pixels = NDArray[np.uint8]
_JFIF: Final = re.compile(rb"(\xff\xe0..JFIF\0)[^\x01]", re.DOTALL)
_ADOBE: Final = re.compile(rb"(\xff\xee..Adobe.{6})[^\x00-\x02]", re.DOTALL)


class LibraryDecoder:
    """The decoder that needs nothing but wheels; see `shards.decode.base.Decoder`."""

    name = "library"

    def __init__(self, *, mode: Mode = "fast") -> None:
        self.mode: Mode = mode
        cv2 = find_opencv()
        self._exact = mode == "exact" or cv2 is None
        if cv2 is not None:
            cv2.setNumThreads(1)  # the stream's threads are the parallelism; OpenCV's own would fight them

    def decode(
        self,
        blobs: Sequence[Blob],
        seeds: NDArray[np.uint64],
        crops: Sequence[Crops],
        out: Sequence[Pixels],
    ) -> NDArray[np.int32]:
        """Decode every blob once and write all its crops; see `shards.decode.base.Decoder.decode`."""
        channels = slot_channels(len(blobs), crops, out)
        seeds = np.asarray(seeds, np.uint64)
        if seeds.shape != (len(blobs),):
            raise ValueError(f"{seeds.shape} seeds for {len(blobs)} images")
        headers = [read_header(blob) for blob in blobs]
        sizes = [upright_size(header) if isinstance(header, ImageHeader) else (1, 1) for header in headers]
        boxes = [crop_boxes(seeds, group, wanted, *_columns(sizes)) for group, wanted in enumerate(crops)]
        status = np.empty(len(blobs), np.int32)
        for row, (blob, header) in enumerate(zip(blobs, headers, strict=True)):
            if isinstance(header, Status):
                status[row] = header
                continue
            drawn = [one.row(row) for one in boxes]
            factor = reduction(drawn, crops) if self.mode == "fast" and header.codec == "jpeg" else 1
            image = decode_pixels(blob, header, channels, factor)
            if isinstance(image, Status):
                status[row] = image
                continue
            if header.codec == "other":
                size = _columns([(image.shape[1], image.shape[0])])
                drawn = [crop_boxes(seeds[row : row + 1], g, wanted, *size).row(0) for g, wanted in enumerate(crops)]
            for group, one, array in zip(crops, drawn, out, strict=True):
                self._write(image, factor, group, one, array[row])
            status[row] = Status.OK
        return status

    def _write(self, image: Pixels, factor: int, group: Crops, drawn: Boxes, slot: Pixels) -> None:
        """Cut, resize and flip the crops of one group from an upright image that was reduced by `factor`."""
        for number in range(group.num):
            crop = resample(image, drawn.box[number] / factor, group, exact=self._exact)
            slot[number] = crop[:, ::-1] if drawn.flip[number] else crop


def _columns(sizes: Sequence[tuple[int, int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Widths and heights as two arrays."""
    table = np.array(sizes, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def upright_size(header: ImageHeader) -> tuple[int, int]:
    """Width and height after the orientation is applied; 1 x 1 where decoding alone can tell."""
    if header.codec == "other":
        return 1, 1
    return (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)


def upright(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn stored pixels `(H, W, ...)` as EXIF orientation 1 to 8 says."""
    if orientation >= 5:
        image = image.swapaxes(0, 1)
    if orientation in {2, 3, 6, 7}:
        image = image[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        image = image[::-1]
    return np.ascontiguousarray(image)


def reduction(boxes: Sequence[Boxes], crops: Sequence[Crops]) -> int:
    """The largest of 8, 4, 2, 1 by which every crop of one image may shrink and still cover its output."""
    spare = min(float(drawn.box[..., 2:].min()) / group.size_px for drawn, group in zip(boxes, crops, strict=True))
    return max((factor for factor in (1, 2, 4, 8) if factor <= spare), default=1)


def decode_pixels(blob: Blob, header: ImageHeader, channels: int, factor: int = 1) -> Pixels | Status:
    """Upright pixels `(H, W, channels)`, or why there are none.

    Args:
        blob: The image.
        header: What `read_header` says about it.
        channels: 3 for RGB, 1 for luma.
        factor: Reduction by 1, 2, 4 or 8 (JPEG only).
    """
    if header.codec != "jpeg":
        return _decode_other(blob, channels)
    try:
        return upright(_decode_jpeg(blob, header, channels, factor), header.orientation)
    except ValueError:
        return Status.CORRUPT


def _decode_jpeg(blob: Blob, header: ImageHeader, channels: int, factor: int) -> Pixels:
    """Stored pixels `(H, W, channels)`, reduced by `factor`; ValueError where there are none."""
    least = {"min_height": -(-header.height // factor), "min_width": -(-header.width // factor)} if factor > 1 else {}
    space = "CMYK" if header.components == 4 else "RGB" if channels == 3 else "GRAY"
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(blob, space, strict=False, **least)
    except ValueError:
        pixels = simplejpeg.decode_jpeg(_without_warnings(blob, header), space, strict=False, **least)
    return pixels if header.components != 4 else _from_inks(pixels, channels, inverted=header.inverted)


def _without_warnings(blob: Blob, header: ImageHeader) -> bytes:
    """A JPEG with the JFIF version and the Adobe transform that libjpeg takes where it does not know those in the file.

    libjpeg warns of them and goes on, and simplejpeg makes an error of a warning about the header.
    """
    head, start, scans = bytes(blob).partition(b"\xff\xda")
    head = _JFIF.sub(b"\\g<1>\x01", head)
    return _ADOBE.sub(b"\\g<1>\x02" if header.components == 4 else b"\\g<1>\x01", head) + start + scans


def _from_inks(inks: Pixels, channels: int, *, inverted: bool) -> Pixels:
    """CMYK to RGB or luma: each colour is the light that its ink and the black let through."""
    light = inks if inverted else 255 - inks
    colour = light[..., :3].astype(np.uint16) * light[..., 3:] + 128
    return as_channels(((colour + (colour >> 8)) >> 8).astype(np.uint8), channels)


def as_channels(image: Pixels, channels: int) -> Pixels:
    """`(H, W)` or `(H, W, 3)` RGB to `(H, W, channels)`; luma by ITU-R 601."""
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[-1] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=-1)
    return luma(image)[..., None]


def _decode_other(blob: Blob, channels: int) -> Pixels | Status:
    """PNG and the other codecs of OpenCV; 16-bit values are scaled to 8 bits, alpha is dropped."""
    cv2 = find_opencv()
    if cv2 is None:
        return _decode_with_pillow(blob, channels)
    try:
        image = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return Status.CORRUPT
    if image is None:
        return Status.CORRUPT
    if image.dtype not in {np.dtype(np.uint8), np.dtype(np.uint16)} or image.shape[0] * image.shape[1] > MAX_PIXELS:
        return Status.UNSUPPORTED
    if image.dtype == np.uint16:
        image = cv2.convertScaleAbs(image, alpha=1 / 257)
    if image.ndim == 3:
        image = np.ascontiguousarray(image[..., :1] if image.shape[-1] < 3 else image[..., 2::-1])
    return as_channels(np.asarray(image, np.uint8), channels)


_PILLOW_MODES: Final = {"1": "L", "L": "L", "LA": "L", "P": "RGB", "PA": "RGB", "RGB": "RGB", "RGBA": "RGB"}


def _decode_with_pillow(blob: Blob, channels: int) -> Pixels | Status:
    """The same by Pillow."""
    try:
        with Image.open(io.BytesIO(blob)) as image:
            if image.width * image.height > MAX_PIXELS:
                return Status.UNSUPPORTED
            if image.mode.startswith("I;16"):
                return as_channels(np.rint(np.asarray(image, np.float64) / 257).astype(np.uint8), channels)
            if image.mode not in _PILLOW_MODES:
                return Status.UNSUPPORTED
            return as_channels(np.asarray(image.convert(_PILLOW_MODES[image.mode])), channels)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        return Status.CORRUPT
