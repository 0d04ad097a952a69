"""What a JPEG, JPEG-LS or JPEG 2000 codestream states of itself, without decoding it: its size, and its boxes."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["codestream_size", "has_endless_box"]

_FRAME_MARKERS: Final = frozenset(
    {*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7}
)
"""SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1), and SOF55 of JPEG-LS (T.87)."""

_JP2_SIGNATURE: Final = b"\0\0\0\x0cjP  \r\n\x87\n"
_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_MOST_SEGMENTS: Final = 4096


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Height and width; None where it is no such codestream or does not say."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return _jpeg2000(data, 4)
    if data[:12] == _JP2_SIGNATURE:
        at = data.find(b"\xff\x4f\xff\x51")
        return _jpeg2000(data, at + 4) if at >= 0 else None
    return _jpeg(data) if data[:2] == b"\xff\xd8" else None


def has_endless_box(data: bytes) -> bool:
    """Whether a box before the codestream of a JP2 file is shorter than its own header (ITU-T T.800, I.4).

    pydicom steps over such a box without getting any further. The lengths 0 (up to the end) and 1 (a longer field
    follows) are defined, but no codestream can come after the first, and none of the boxes before it needs the second.
    """
    if data[:8] != _JP2_SIGNATURE[:8]:
        return False
    at = len(_JP2_SIGNATURE)
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"jp2c":
        length = int.from_bytes(data[at : at + 4], "big")
        if length < 8:
            return True
        at += length
    return at < len(data) < at + 8


def _jpeg2000(data: bytes, at: int) -> tuple[int, int] | None:
    """SIZ (ITU-T T.800, A.5.1): the reference grid less the offset of the image."""
    if len(data) < at + 22:
        return None
    width, height, left, top = struct.unpack_from(">LLLL", data, at + 4)
    return max(0, height - top), max(0, width - left)


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        while at < len(data) - 1 and data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 2 if marker in _ALONE else 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None
