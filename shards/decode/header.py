"""What the bytes of an image say before any pixel is decoded: size, orientation and whether the decoders can read it.

All decoders judge an image by these rules, so that a file has the same status in each of them:
JPEG must be 8-bit Huffman-coded baseline, extended or progressive, with one frame of 1, 3 or 4 components, tables with
which each of its scans can begin, and complete (an end-of-image marker after the first scan), of at most `MAX_SCANS`
scans; PNG must hold its last chunk; neither may exceed `MAX_PIXELS`.

Nothing but these rules decides whether a JPEG is bad: not the decoder, the crops or the device. Damage inside a scan is
found by the checksum of the sample; a decoder that meets some goes on, as libjpeg does. What other codecs hold, the
library of the host says. `check_images` applies the rules to many images in one call.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

from shards.decode.base import MAX_PIXELS, Blob, Status
from shards.decode.jpeg import JpegMarkers
from shards.decode.tables import BadJpegError

__all__ = ["ImageHeader", "read_header"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_OTHER: Final = (b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"\xffO\xffQ")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """What is known before decoding.

    Attributes:
        codec: `jpeg`, `png`, or `other` (its size is only known after decoding).
        width: Stored width in pixels, before the orientation is applied; 0 for `other`.
        height: Stored height in pixels.
        components: Colour components of a JPEG (1 gray, 3 colour, 4 CMYK or YCCK).
        orientation: EXIF orientation of a JPEG, 1 to 8.
        inverted: Whether a four-component JPEG holds inverted inks (Adobe's convention).
    """

    codec: Literal["jpeg", "png", "other"]
    width: int = 0
    height: int = 0
    components: int = 0
    orientation: int = 1
    inverted: bool = False


def read_header(blob: Blob) -> ImageHeader | Status:
    """Read the header of an image, or say why it cannot be decoded."""
    head = bytes(blob[:8])
    if head[:2] == b"\xff\xd8":
        return _read_jpeg(blob)
    if head == _PNG:
        return _read_png(blob)
    if any(head.startswith(magic) for magic in _OTHER):
        return ImageHeader(codec="other")
    return Status.UNSUPPORTED if len(head) == 8 else Status.CORRUPT


def _read_png(blob: Blob) -> ImageHeader | Status:
    if len(blob) < 45 or b"IEND" not in bytes(blob[-64:]):
        return Status.CORRUPT
    width, height = struct.unpack(">II", blob[16:24])
    return _bounded(ImageHeader(codec="png", width=width, height=height))


def _bounded(header: ImageHeader) -> ImageHeader | Status:
    if header.width < 1 or header.height < 1:
        return Status.CORRUPT
    return header if header.width * header.height <= MAX_PIXELS else Status.UNSUPPORTED


def _read_jpeg(blob: Blob) -> ImageHeader | Status:
    try:
        markers = JpegMarkers(blob)
    except BadJpegError as bad:
        return bad.status
    tables = markers.tables
    return ImageHeader(
        codec="jpeg",
        width=tables.width,
        height=tables.height,
        components=tables.components,
        orientation=markers.orientation,
        inverted=markers.inverted,
    )
