"""What the first bytes of an image say: size, orientation and whether the decoders can read it.

All decoders judge an image by these rules, so that a file has the same status in each of them:
JPEG must be 8-bit Huffman-coded baseline, extended or progressive, with one frame of 1, 3 or 4 components and a
quantisation table, and complete (an end-of-image marker after the first scan), of at most `MAX_SCANS` scans; PNG must
hold its last chunk; neither may exceed `MAX_PIXELS`.

Nothing but these bytes decides whether a JPEG is bad: not the decoder, the crops or the device. Damage inside a scan is
found by the checksum of the sample; a decoder that meets some goes on, as libjpeg does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, Literal

from shards.decode.base import MAX_PIXELS, MAX_SCANS, Blob, Status

__all__ = ["ImageHeader", "read_header"]

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_OTHER: Final = (b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP", b"\xffO\xffQ")
_HUFFMAN_FRAMES: Final = {0xC0, 0xC1, 0xC2}
_FRAMES: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = {0x01, *range(0xD0, 0xD8)}
_ORIENTATION_TAG: Final = 0x0112


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
    position, size = 2, len(blob)
    frame: tuple[int, int, int, int, int] | None = None
    orientation, adobe, tables = 1, False, False
    while position + 4 <= size:
        if blob[position] != 0xFF:
            return Status.CORRUPT
        marker = blob[position + 1]
        if marker == 0xFF or marker in _STANDALONE:
            position += 1 if marker == 0xFF else 2
            continue
        length = (blob[position + 2] << 8) | blob[position + 3]
        body = blob[position + 4 : position + 2 + length]
        if length < 2 or len(body) != length - 2:
            return Status.CORRUPT
        tables = tables or marker == 0xDB
        if marker in _FRAMES and len(body) >= 6:
            if frame is not None:
                return Status.CORRUPT
            frame = (marker, *struct.unpack(">BHHB", body[:6]))
        elif marker == 0xE1 and orientation == 1:
            orientation = _exif_orientation(bytes(body))
        elif marker == 0xEE and bytes(body[:5]) == b"Adobe":
            adobe = True
        elif marker == 0xDA:
            return _judge(frame if tables else None, orientation, adobe, bytes(blob[position:]))
        position += 2 + length
    return Status.CORRUPT


def _judge(
    frame: tuple[int, int, int, int, int] | None, orientation: int, adobe: bool, scans: bytes
) -> ImageHeader | Status:
    if frame is None or b"\xff\xd9" not in scans:
        return Status.CORRUPT
    marker, precision, height, width, components = frame
    known = marker in _HUFFMAN_FRAMES and precision == 8 and components in {1, 3, 4}
    if not known or scans.count(b"\xff\xda") > MAX_SCANS:
        return Status.UNSUPPORTED
    return _bounded(
        ImageHeader(
            codec="jpeg", width=width, height=height, components=components, orientation=orientation, inverted=adobe
        )
    )


def _exif_orientation(body: bytes) -> int:
    """Orientation tag of the first directory of an EXIF block, 1 where there is none or it makes no sense."""
    if body[:6] != b"Exif\0\0" or body[6:10] not in {b"II*\0", b"MM\0*"}:
        return 1
    tiff, order = body[6:], "<" if body[6:7] == b"I" else ">"
    if len(tiff) < 8:
        return 1
    start = struct.unpack_from(order + "I", tiff, 4)[0]
    if start + 2 > len(tiff):
        return 1
    for entry in range(struct.unpack_from(order + "H", tiff, start)[0]):
        offset = start + 2 + 12 * entry
        if offset + 12 > len(tiff):
            return 1
        tag, kind, count = struct.unpack_from(order + "HHI", tiff, offset)
        if tag == _ORIENTATION_TAG:
            value = struct.unpack_from(order + "H", tiff, offset + 8)[0]
            return value if kind == 3 and count == 1 and 1 <= value <= 8 else 1
    return 1
