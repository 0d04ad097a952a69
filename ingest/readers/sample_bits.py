"""How many bits a file stores of each sample, as its header states them: Pillow gives all samples whole bytes."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PNG_MAGIC", "jpeg2000_size", "sample_bits"]

PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PALETTE: Final = 3
_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_HEAD: Final = 1 << 16
_PNM: Final = re.compile(rb"P([1-6])((?:(?:\s|#[^\r\n]*[\r\n])+\d+){2})(?:(?:\s|#[^\r\n]*[\r\n])+(\d{1,5}))?")


def sample_bits(data: bytes) -> int:
    """Bits of a sample of a PNG, PNM or JPEG 2000 file, of a palette those of its colours; 0 where nothing says."""
    if data[:8] == PNG_MAGIC and len(data) > 25:
        return 8 if data[25] == _PALETTE else data[24]
    start = jpeg2000_size(data)
    if start is not None:
        return (data[start + 38 : start + 39] + b"\0")[0] % 128 + 1
    header = _PNM.match(data[:_HEAD])
    if header is None:
        return 0
    return 1 if header[1] in b"14" else int(header[3] or 0).bit_length()


def jpeg2000_size(data: bytes) -> int | None:
    """Where the first marker segment of a JPEG 2000 codestream lies, SIZ (ISO 15444-1, A.5.1); None in other files."""
    start = data[:_HEAD].find(_CODESTREAM)
    return None if start < 0 or (start > 0 and data[4:8] != b"jP  ") else start + 4
