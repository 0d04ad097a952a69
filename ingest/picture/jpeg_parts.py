"""JPEG files re-assembled from what a decoder needs, the compressed picture untouched.

What stays: the frame, the tables that its scans use, scan headers, entropy-coded data up to the last MCU, and of the
application segments a bare JFIF or Adobe marker where the file had one, because decoders tell YCbCr from RGB by them.
What goes: EXIF, XMP, IPTC, ICC, thumbnails, comments, tables that nothing uses, and everything behind the end of the
image.

Bytes that hide between the last MCU of a scan and the next marker decode to nothing. Whether there are any is asked of
libjpeg: without its last byte, a scan that ends with its last MCU is cut short, and libjpeg says so. Costs one decode
at an eighth of the size, where most of the inverse transform is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import simplejpeg

_SOI, _EOI, _SOS, _DHT, _DQT, _DRI, _JFIF, _ADOBE = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xE0, 0xEE
_PROGRESSIVE: Final = 0xC2
_FRAMES: Final = frozenset({0xC0, 0xC1, _PROGRESSIVE})
_BARE_JFIF: Final = b"\xff\xe0\x00\x10JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_LARGEST_SIDE: Final = 65500
_MOST_SCANS: Final = 64
_CUT: Final = "premature end of data segment"


class _UnusualError(Exception):
    """The file is none of the JPEGs that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scan:
    """One scan: the tables that are new to it, its header and its entropy-coded data."""

    tables: bytes
    header: bytes
    data: bytes
    interval: int


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What a file holds of use.

    Attributes:
        head: SOI and the bare application segments.
        marker: SOF marker.
        frame: Payload of the frame header.
        quant: Quantisation tables by number, as last defined.
        huffman: Huffman tables by class and number, likewise.
        interval: Restart interval, likewise.
        written: What the tables were when a scan last used them.
        scans: The scans so far.
    """

    head: bytes = b"\xff\xd8"
    marker: int = 0
    frame: bytes = b""
    quant: dict[int, bytes] = field(default_factory=dict)
    huffman: dict[int, bytes] = field(default_factory=dict)
    interval: int = 0
    written: dict[tuple[int, int], bytes] = field(default_factory=dict)
    scans: list[_Scan] = field(default_factory=list)

    @property
    def components(self) -> dict[int, int]:
        """Component → its quantisation table."""
        return {self.frame[at]: self.frame[at + 2] for at in range(6, len(self.frame), 3)}


def reassemble(data: bytes) -> bytes | None:
    """The same picture, of what a decoder needs.

    Args:
        data: A JPEG file.

    Returns:
        The new file; None where it is no baseline, extended or progressive 8-bit Huffman JPEG of one or three
        components, is cut off, or hides bytes in a scan (then it has to be encoded anew).
    """
    if data[:2] != b"\xff\xd8":
        return None
    try:
        parts = _parse(data)
        if not parts.scans or not _end_with_their_last_mcu(parts):
            return None
    except (_UnusualError, IndexError):
        return None
    return _file(parts, [scan.data for scan in parts.scans])


def _parse(data: bytes) -> _Parts:
    parts, position = _Parts(), 2
    while True:
        marker, position = _next_marker(data, position)
        if marker == _EOI:
            return parts
        payload, end = _segment(data, position)
        if marker in _FRAMES:
            _set_frame(parts, marker, payload)
        elif marker == _DQT:
            parts.quant |= _tables(payload, is_huffman=False)
        elif marker == _DHT:
            parts.huffman |= _tables(payload, is_huffman=True)
        elif marker == _DRI:
            parts.interval = _interval(payload)
        elif marker == _JFIF and payload[:5] == b"JFIF\0":
            parts.head = b"\xff\xd8" + _BARE_JFIF + parts.head[2:].removeprefix(_BARE_JFIF)
        elif marker == _ADOBE and payload[:5] == b"Adobe" and len(payload) >= 12:
            parts.head += b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + payload[11:12]
        elif marker == _SOS:
            start, end = end, _scan_end(data, end)
            _add_scan(parts, payload, data[start:end].rstrip(b"\xff"))
        elif not 0xE0 <= marker <= 0xEF and marker != 0xFE:
            raise _UnusualError
        position = end


def _interval(payload: bytes) -> int:
    if len(payload) != 2:
        raise _UnusualError
    return int.from_bytes(payload, "big")


def _next_marker(data: bytes, position: int) -> tuple[int, int]:
    """The marker at `position`, past its fill bytes, and where its segment starts."""
    if data[position] != 0xFF:
        raise _UnusualError
    while data[position] == 0xFF:
        position += 1
    return data[position], position + 1


def _segment(data: bytes, position: int) -> tuple[bytes, int]:
    length = int.from_bytes(data[position : position + 2], "big")
    end = position + length
    if length < 2 or end > len(data):
        raise _UnusualError
    return data[position + 2 : end], end


def _set_frame(parts: _Parts, marker: int, payload: bytes) -> None:
    if parts.marker or payload[0] != 8 or payload[5] not in (1, 3) or len(payload) != 6 + 3 * payload[5]:
        raise _UnusualError
    parts.marker, parts.frame = marker, payload


def _tables(payload: bytes, *, is_huffman: bool) -> dict[int, bytes]:
    """The tables of a DQT or DHT segment by their first byte's number, each with that byte."""
    found: dict[int, bytes] = {}
    position = 0
    while position < len(payload):
        first = payload[position]
        size = 16 + sum(payload[position + 1 : position + 17]) if is_huffman else 128 if first >> 4 else 64
        if position + 1 + size > len(payload):
            raise _UnusualError
        found[first if is_huffman else first & 15] = payload[position : position + 1 + size]
        position += 1 + size
    return found


def _add_scan(parts: _Parts, header: bytes, data: bytes) -> None:
    count = header[0]
    if not parts.marker or len(header) != 4 + 2 * count or not data or len(parts.scans) >= _MOST_SCANS:
        raise _UnusualError
    first, approximation = header[1 + 2 * count], header[3 + 2 * count]
    new = b""
    for at in range(1, 1 + 2 * count, 2):
        new += _if_new(parts, _DQT, parts.components.get(header[at], -1), parts.quant)
        for kind, number in ((0, header[at + 1] >> 4), (1, header[at + 1] & 15)):
            if _uses(parts.marker, kind, first, approximation):
                new += _if_new(parts, _DHT, kind << 4 | number, parts.huffman)
    if parts.interval or any(scan.interval for scan in parts.scans):
        new += b"\xff\xdd\0\x04" + parts.interval.to_bytes(2, "big")
    parts.scans.append(_Scan(tables=new, header=header, data=data, interval=parts.interval))


def _uses(marker: int, kind: int, first: int, approximation: int) -> bool:
    """Whether a scan decodes with a table of this class: 0 is DC, 1 is AC (T.81, G.1.2)."""
    if marker != _PROGRESSIVE:
        return True
    return (first == 0 and approximation >> 4 == 0) if kind == 0 else first > 0


def _if_new(parts: _Parts, marker: int, number: int, tables: dict[int, bytes]) -> bytes:
    table = tables.get(number)
    if table is None:
        raise _UnusualError
    if parts.written.get((marker, number)) == table:
        return b""
    parts.written[marker, number] = table
    return bytes((0xFF, marker)) + (2 + len(table)).to_bytes(2, "big") + table


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


def _file(parts: _Parts, scans: list[bytes], *, frame: bytes = b"", restarts: bool = True) -> bytes:
    """A JPEG of these parts, with other data of its scans."""
    frame = frame or parts.frame
    body = [parts.head, bytes((0xFF, parts.marker)), (2 + len(frame)).to_bytes(2, "big"), frame]
    for scan, data in zip(parts.scans, scans, strict=True):
        tables = scan.tables if restarts else scan.tables.removesuffix(scan.tables[-6:])
        body += [tables, b"\xff\xda", (2 + len(scan.header)).to_bytes(2, "big"), scan.header, data]
    return b"".join(body) + b"\xff\xd9"


def _end_with_their_last_mcu(parts: _Parts) -> bool:
    """Whether no scan, and no restart interval of one, holds a byte behind its last MCU."""
    whole = [scan.data for scan in parts.scans]
    if any(scan.interval for scan in parts.scans):
        return len(whole) == 1 and all(_is_cut_short(single) for single in _intervals(parts))
    for number, data in enumerate(whole):
        if not _is_cut_short(_file(parts, [*whole[:number], _shortened(data), *whole[number + 1 :]])):
            return False
    return True


def _shortened(data: bytes) -> bytes:
    """Without its last byte; a stuffed 0xFF is two."""
    return data[:-2] if data.endswith(b"\xff\0") else data[:-1]


def _is_cut_short(data: bytes) -> bool:
    """Whether libjpeg lacks data in it, and has nothing else to complain of before."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1)
    except ValueError as error:
        return _CUT in str(error)
    return False


def _intervals(parts: _Parts) -> Iterator[bytes]:
    """Each restart interval as a JPEG of its own, one row of MCUs, without its last byte."""
    frame, scan = parts.frame, parts.scans[0]
    samplings = [frame[at + 1] for at in range(6, len(frame), 3)]
    if parts.marker == _PROGRESSIVE or scan.header[0] != len(samplings):
        raise _UnusualError
    across, down = (max(s >> 4 for s in samplings), max(s & 15 for s in samplings))
    if len(samplings) == 1:
        across = down = 1
    width, height = 8 * across, 8 * down
    rows, columns = (int.from_bytes(frame[at : at + 2], "big") for at in (1, 3))
    left = -(-rows // height) * -(-columns // width)
    for data in _pieces(scan.data):
        count = min(left, scan.interval)
        left -= count
        if not 0 < count * width <= _LARGEST_SIDE:
            raise _UnusualError
        size = height.to_bytes(2, "big") + (count * width).to_bytes(2, "big")
        yield _file(parts, [_shortened(data)], frame=frame[:1] + size + frame[5:], restarts=False)
    if left:
        raise _UnusualError


def _pieces(data: bytes) -> Iterator[bytes]:
    """Entropy-coded data between restart markers, which have to follow each other in order."""
    start = position = number = 0
    while (position := data.find(b"\xff", position)) >= 0:
        following = data[position + 1]
        if following == 0:
            position += 2
            continue
        if following != 0xD0 + number % 8:
            raise _UnusualError
        yield data[start:position]
        start = position = position + 2
        number += 1
    yield data[start:]
