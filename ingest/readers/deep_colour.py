"""Files whose headers Pillow cannot use: colour of more than 8 bits per sample, and PNGs with damaged side chunks."""

from __future__ import annotations

import re
import zlib
from typing import Final

import numpy as np

from ingest.readers.base import Pixels
from ingest.readers.sample_bits import PNG_MAGIC, jpeg2000_size, sample_bits
from shards.decode.opencv import require_opencv

_NEEDED: Final = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_GRAY_AND_ALPHA: Final = 4
_COLOUR_TYPES: Final = (2, _GRAY_AND_ALPHA, 6)
"""PNG colour types of which Pillow keeps 8 of 16 bits: RGB, gray with alpha, RGB with alpha."""


def deep_colour(data: bytes) -> Pixels | None:
    """`(H, W, 3)` uint16 of a PNG or JPEG 2000 file with colour of more than 8 bits; `(H, W)` of gray and alpha.

    Transparency is laid over black.

    Returns:
        None for all other files, and where the decoder has anything to complain of.

    Raises:
        LibraryError: OpenCV is not installed.
    """
    if not is_deep(data):
        return None
    cv2 = require_opencv("colour of more than 8 bits")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        return None
    colour = pixels[..., 2::-1]
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 65535
        colour = np.rint(colour * alpha).astype(np.uint16)
    return np.ascontiguousarray(colour[..., 0] if _is_gray_png(data) else colour)


def is_deep(data: bytes) -> bool:
    """Whether a file is a PNG or JPEG 2000 of colour (or gray and alpha) of more than 8 bits per sample."""
    return _is_deep_png(data) or _is_deep_jpeg2000(data)


def may_be_turned(data: bytes) -> bool:
    """Whether anything in such a file may say that it is to be shown turned: EXIF, or text that holds EXIF or XMP."""
    return data[:8] != PNG_MAGIC or any(kind in data for kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt"))


def _is_deep_png(data: bytes) -> bool:
    return data[:8] == PNG_MAGIC and len(data) > 25 and data[24] == 16 and data[25] in _COLOUR_TYPES


def _is_gray_png(data: bytes) -> bool:
    """Whether a PNG has gray and alpha (colour type 4)."""
    return data[:8] == PNG_MAGIC and data[25] == _GRAY_AND_ALPHA


def _is_deep_jpeg2000(data: bytes) -> bool:
    """Whether the first component of a codestream of three or more has more than 8 bits (ISO 15444-1, A.5.1)."""
    start = jpeg2000_size(data)
    return start is not None and int.from_bytes(data[start + 36 : start + 38], "big") >= 3 and sample_bits(data) > 8


def sound_png(data: bytes) -> bytes | None:
    """The chunks of a PNG that its pixels need, with those left out whose checksum is wrong.

    Chunks that only describe the picture (text, profiles, times) are dropped. A chunk of a wrong length is passed over
    to the next chunk that the pixels need.

    Returns:
        None where nothing was to be left out, or no pixels are there.
    """
    if data[:8] != PNG_MAGIC:
        return None
    kept, position, dropped = [data[:8]], 8, False
    while position + 12 <= len(data):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        end = position + 12 + length
        checksum = int.from_bytes(data[end - 4 : end], "big")
        is_sound = end <= len(data) and zlib.crc32(data[position + 4 : end - 4]) == checksum
        if (kind in _NEEDED and (is_sound or end <= len(data))) or (kind == b"tRNS" and is_sound):
            kept.append(data[position:end])
        else:
            dropped = True
        if kind == b"IEND":
            break
        position = end if is_sound else _next_needed(data, position + 8, end)
    has_pixels = any(chunk[4:8] == b"IDAT" for chunk in kept[1:])
    return b"".join(kept) if dropped and has_pixels else None


def _next_needed(data: bytes, position: int, end: int) -> int:
    """Where to go on behind a chunk that is not sound: at its stated end if a chunk begins there, else at the next."""
    if end + 8 <= len(data) and re.fullmatch(rb"[A-Za-z]{4}", data[end + 4 : end + 8]):
        return end
    found = re.search(b"|".join(_NEEDED), data[position:])
    return position + found.start() - 4 if found else len(data)
