"""What the markers of a JPEG say. Keep in step with shards/native/header.c."""

from __future__ import annotations

import re
import struct
from typing import Final

from shards.decode.base import MAX_SCANS, Blob, Status
from shards.decode.tables import BadJpegError, JpegTables, read_arithmetic

__all__ = ["JpegMarkers"]

_FRAMES: Final = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = {0x01, *range(0xD0, 0xD8)}
_IGNORED: Final = {0xDC, 0xFE, *range(0xE0, 0xF0)}
_SEGMENT: Final = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_SCANS_AND_END: Final = re.compile(rb"\xff([\xda\xd9])")
_ORIENTATION_TAG: Final = 0x0112
_START, _END = 0xDA, 0xD9


class JpegMarkers:
    """A walk over the segments of a JPEG.

    Args:
        blob: The whole file; its first two bytes are those of a JPEG.

    Attributes:
        tables: What the segments have defined.
        orientation: EXIF orientation, 1 to 8.
        inverted: Whether Adobe's marker is there.

    Raises:
        BadJpegError: It is one that decoders do not take.
    """

    def __init__(self, blob: Blob) -> None:
        self.tables = JpegTables()
        self.orientation = 1
        self.inverted = False
        position = 2
        while True:
            if position + 4 > len(blob) or blob[position] != 0xFF:
                raise BadJpegError
            marker = blob[position + 1]
            if marker == 0xFF or marker in _STANDALONE:
                position += 1 if marker == 0xFF else 2
                continue
            body = _body(blob, position)
            if marker == _START:
                self._judge(body, bytes(blob[position:]))
                return
            self._read_segment(marker, body)
            position += 4 + len(body)

    def _judge(self, body: bytes, rest: bytes) -> None:
        """What is decided where the first scan begins; `rest` is the file from there on."""
        found = [match[1] for match in _SCANS_AND_END.finditer(rest)]
        if not self.tables.frame or not self.tables.quant or b"\xd9" not in found:
            raise BadJpegError
        self.tables.judge_frame()
        if found.count(b"\xda") > MAX_SCANS:
            raise BadJpegError(Status.UNSUPPORTED)
        if self.tables.read_scan(body):
            kept = self.orientation, self.inverted
            self._read_later_scans(rest, 4 + len(body))
            self.orientation, self.inverted = kept

    def _read_later_scans(self, rest: bytes, position: int) -> None:
        """The segments behind the first scan, up to the end of the image."""
        while match := _SEGMENT.search(rest, position):
            position, marker = match.start(), match[1][0]
            if marker == _END:
                return
            body = _body(rest, position)
            if marker == _START:
                self.tables.read_scan(body)
            else:
                self._read_segment(marker, body)
            position += 4 + len(body)
        raise BadJpegError

    def _read_segment(self, marker: int, body: bytes) -> None:
        """One segment before or between scans, except the start of a scan."""
        if marker in _FRAMES:
            self.tables.read_frame(marker, body)
        elif marker == 0xC4:
            self.tables.read_huffman(body)
        elif marker == 0xCC:
            read_arithmetic(body)
        elif marker == 0xDB:
            self.tables.read_quant(body)
        elif marker == 0xDD:
            if len(body) != 2:
                raise BadJpegError
        elif marker not in _IGNORED:
            raise BadJpegError
        elif marker == 0xE1 and self.orientation == 1:
            self.orientation = _exif_orientation(body)
        elif marker == 0xEE and body[:5] == b"Adobe":
            self.inverted = True


def _body(blob: Blob, position: int) -> bytes:
    """What a segment holds behind its length."""
    if position + 4 > len(blob):
        raise BadJpegError
    length = (blob[position + 2] << 8) | blob[position + 3]
    body = bytes(blob[position + 4 : position + 2 + length])
    if length < 2 or len(body) != length - 2:
        raise BadJpegError
    return body


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
