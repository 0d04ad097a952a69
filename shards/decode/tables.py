"""The tables and scans of a JPEG: whether libjpeg can begin each scan. Keep in step with shards/native/tables.c.

What ITU-T T.81 (Annex B, C and G) asks of a segment, and what libjpeg asks beyond it: everything that ends its decoding
with an error, so that an image which passes here has pixels in every decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from shards.decode.base import MAX_PIXELS, Status

__all__ = ["PROGRESSIVE", "BadJpegError", "JpegTables"]

PROGRESSIVE: Final = 0xC2
_HUFFMAN_FRAMES: Final = {0xC0, 0xC1, PROGRESSIVE}
_COMPONENTS: Final = {1, 3, 4}
_MAX_SIDE: Final = 65500
_MAX_BLOCKS: Final = 10
"""Of all components together in one unit of an interleaved scan."""
_MAX_SHIFT: Final = 13
_LAST_COEFFICIENT: Final = 63
_SHORT_CODES: Final = 16


class BadJpegError(Exception):
    """The image has this status."""

    def __init__(self, status: Status = Status.CORRUPT) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class _Part:
    """A component: its id, sampling factors and quantisation table."""

    id: int
    h: int
    v: int
    quant: int


@dataclass(slots=True)
class JpegTables:
    """What the segments of a JPEG have defined so far.

    Attributes:
        frame: Marker of the frame, 0 before it.
        precision: Bits of a sample.
        width: Stored width in pixels.
        height: Stored height in pixels.
        components: Number of components.
        parts: The first four of them.
        quant: Quantisation tables.
        huffman: Huffman tables by class (0 DC, 1 AC) and number, and whether one can decode with them.
    """

    frame: int = 0
    precision: int = 0
    width: int = 0
    height: int = 0
    components: int = 0
    parts: list[_Part] = field(default_factory=list)
    quant: set[int] = field(default_factory=set)
    huffman: dict[tuple[int, int], bool] = field(default_factory=dict)

    def read_quant(self, body: bytes) -> None:
        """Take a DQT segment."""
        at = 0
        while at < len(body):
            wide, index = body[at] >> 4, body[at] & 15
            at += 1 + (128 if wide else 64)
            if index >= 4 or at > len(body):
                raise BadJpegError
            self.quant.add(index)

    def read_huffman(self, body: bytes) -> None:
        """Take a DHT segment."""
        at = 0
        while at < len(body):
            counts = body[at + 1 : at + 1 + _SHORT_CODES]
            values = body[at + 1 + _SHORT_CODES : at + 1 + _SHORT_CODES + sum(counts)]
            kind, index = body[at] >> 4 & 1, body[at] & 0xEF
            if len(counts) < _SHORT_CODES or sum(counts) > 256 or len(values) < sum(counts) or index >= 4:
                raise BadJpegError
            self.huffman[kind, index] = _is_code(counts) and (kind == 1 or max(values, default=0) <= 15)
            at += 1 + _SHORT_CODES + len(values)

    def read_frame(self, marker: int, body: bytes) -> None:
        """Take the SOF segment."""
        if self.frame or len(body) < 6 or len(body) != 6 + 3 * body[5]:
            raise BadJpegError
        self.frame = marker
        self.precision, self.height, self.width, self.components = struct.unpack(">BHHB", body[:6])
        self.parts = [
            _Part(one, both >> 4, both & 15, quant) for one, both, quant in struct.iter_unpack("BBB", body[6:18])
        ]

    def judge_frame(self) -> None:
        """Raise where the frame is none that all decoders take."""
        known = self.frame in _HUFFMAN_FRAMES and self.precision == 8 and self.components in _COMPONENTS
        if not known:
            raise BadJpegError(Status.UNSUPPORTED)
        if self.width < 1 or self.height < 1:
            raise BadJpegError
        if max(self.width, self.height) > _MAX_SIDE:
            raise BadJpegError(Status.UNSUPPORTED)
        if not all(1 <= part.h <= 4 and 1 <= part.v <= 4 for part in self.parts):
            raise BadJpegError
        widest, tallest = max(part.h for part in self.parts), max(part.v for part in self.parts)
        fractions = any(widest % part.h or tallest % part.v for part in self.parts)
        if fractions or self.width * self.height > MAX_PIXELS:
            raise BadJpegError(Status.UNSUPPORTED)

    def read_scan(self, body: bytes) -> bool:
        """Raise where a scan cannot begin; returns whether other scans follow."""
        num = body[0] if body else 0
        if not 1 <= num <= 4 or len(body) != 4 + 2 * num:
            raise BadJpegError
        first, last, shifts = body[-3:]
        progressive = self.frame == PROGRESSIVE
        if progressive and not _is_progression(first, last, shifts >> 4, shifts & 15, num):
            raise BadJpegError
        needs_dc = not progressive or (first == 0 and shifts >> 4 == 0)
        needs_ac = not progressive or first != 0
        chosen: list[int] = []
        for one, tables in zip(body[1:-3:2], body[2:-3:2], strict=True):
            chosen.append(self._find(one, chosen))
            fits = self.parts[chosen[-1]].quant in self.quant
            fits = fits and (not needs_dc or self._has_table(0, tables >> 4))
            if not fits or (needs_ac and not self._has_table(1, tables & 15)):
                raise BadJpegError
        if num > 1 and sum(self.parts[part].h * self.parts[part].v for part in chosen) > _MAX_BLOCKS:
            raise BadJpegError
        return progressive or num < self.components

    def _find(self, one: int, chosen: list[int]) -> int:
        """The number of the component with this id that is not in the scan yet, as libjpeg looks for it."""
        for number, part in enumerate(self.parts):
            if part.id == one and number >= len(chosen):
                if number in chosen:
                    break
                return number
        raise BadJpegError

    def _has_table(self, kind: int, index: int) -> bool:
        """Libjpeg has the standard's tables 0 and 1 for frames that are not progressive."""
        return self.huffman.get((kind, index), self.frame != PROGRESSIVE and index < 2)


def read_arithmetic(body: bytes) -> None:
    """Raise where a DAC segment makes no sense."""
    if len(body) % 2:
        raise BadJpegError
    for index, value in struct.iter_unpack("BB", body):
        if index >= 32 or (index < 16 and value & 15 > value >> 4):
            raise BadJpegError


def _is_code(counts: bytes) -> bool:
    """Whether codes of these lengths can be told apart, none of them all ones."""
    code = 0
    for length, count in enumerate(counts, 1):
        code += count
        if count and code >= 1 << length:
            return False
        code <<= 1
    return True


def _is_progression(first: int, last: int, high: int, low: int, num: int) -> bool:
    if first == 0:
        if last != 0:
            return False
    elif first > last or last > _LAST_COEFFICIENT or num != 1:
        return False
    return (high == 0 or low == high - 1) and low <= _MAX_SHIFT
