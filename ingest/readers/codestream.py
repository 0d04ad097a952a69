"""The size that a JPEG, JPEG-LS or JPEG 2000 codestream states of itself, without decoding it."""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["codestream_size"]

_FRAME_MARKERS: Final = frozenset(
    {*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0), 0xF7}
)
"""SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81, table B.1), and SOF55 of JPEG-LS (T.87)."""

_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_MOST_SEGMENTS: Final = 4096


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """Height and width; None where it is no such codestream or does not say."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return _jpeg2000(data, 4)
    if data[:12] == b"\0\0\0\x0cjP  \r\n\x87\n":
        at = data.find(b"\xff\x4f\xff\x51")
        return _jpeg2000(data, at + 4) if at >= 0 else None
    return _jpeg(data) if data[:2] == b"\xff\xd8" else None


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
