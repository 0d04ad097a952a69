"""JPEG files without their metadata, the compressed picture untouched.

What stays: tables, frame and scan headers, entropy-coded data, and of the application segments a bare JFIF or Adobe
marker where the file had one, because decoders tell YCbCr from RGB by them. What goes: EXIF, XMP, IPTC, ICC,
thumbnails, comments, and everything behind the end of the image.
"""

from __future__ import annotations

from typing import Final

_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_TABLES: Final = frozenset({0xC4, 0xDB, 0xDD})
_HUFFMAN_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
_JFIF: Final = b"\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"


def strip_metadata(data: bytes) -> bytes | None:
    """The same picture without metadata.

    Args:
        data: A JPEG file.

    Returns:
        The stripped file; None where it is no baseline, extended or progressive 8-bit Huffman JPEG of one or three
        components, or is cut off (then it has to be encoded anew).
    """
    if data[:2] != b"\xff\xd8":
        return None
    head, body = b"\xff\xd8", list[bytes]()
    position = 2
    seen_frame = False
    while True:
        found = _next_marker(data, position)
        if found is None:
            return None
        marker, position = found
        if marker == _EOI:
            return head + b"".join(body) + b"\xff\xd9" if seen_frame else None
        segment = _segment(data, position)
        if segment is None:
            return None
        payload, end = segment
        if marker in _HUFFMAN_FRAMES:
            if seen_frame or payload[0] != 8 or payload[5] not in (1, 3):
                return None
            seen_frame = True
        elif marker == 0xE0 and payload[:5] == b"JFIF\0":
            head = b"\xff\xd8" + _JFIF
        elif marker == 0xEE and payload[:5] == b"Adobe" and len(payload) >= 12:
            body.append(b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + payload[11:12])
        elif marker == _SOS:
            end = _scan_end(data, end)
        elif marker not in _TABLES and not _is_dropped(marker):
            return None
        if marker in _HUFFMAN_FRAMES | _TABLES or marker == _SOS:
            body.append(bytes((0xFF, marker)) + data[position:end])
        position = end


def _is_dropped(marker: int) -> bool:
    return 0xE0 <= marker <= 0xEF or marker == 0xFE


def _next_marker(data: bytes, position: int) -> tuple[int, int] | None:
    """The marker at `position` and where its segment starts."""
    if position + 1 >= len(data) or data[position] != 0xFF:
        return None
    while position < len(data) and data[position] == 0xFF:
        position += 1
    return (data[position], position + 1) if position < len(data) else None


def _segment(data: bytes, position: int) -> tuple[bytes, int] | None:
    length = int.from_bytes(data[position : position + 2], "big")
    end = position + length
    return (data[position + 2 : end], end) if length >= 2 and end <= len(data) else None


def _scan_end(data: bytes, position: int) -> int:
    """Where the entropy-coded data stops: the next marker that is neither stuffing nor a restart."""
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            return len(data)
        following = data[position + 1]
        if following == 0xFF:
            position += 1
        elif following == 0 or 0xD0 <= following <= 0xD7:
            position += 2
        else:
            return position
