"""Data that lie in other files than the header (NRRD `data file`, MetaImage `ElementDataFile`), and how they unpack.

Names are relative to the header's folder: `a.raw`, `./a.raw`, `data/my scan.raw`, a list of names, or a pattern with
numbers (`slice%03d.raw 1 60 1`). Names that lead out of that folder are refused.
"""

from __future__ import annotations

import bz2
import re
import zlib
from collections.abc import Sequence
from typing import Final

from ingest.raw.faults import fault_of
from ingest.raw.items import RawFile, RejectError
from ingest.raw.names import leads_out

_NUMBER: Final = re.compile(r"%(0?)(\d{0,4})d")
_MOST_FILES: Final = 1 << 16
_MOST_DIGITS: Final = 12


def data_names(value: str, listed: Sequence[str]) -> list[str]:
    """The names of the data files.

    Args:
        value: What the header says: a name, `LIST`, or a pattern with first and last number and step.
        listed: The lines behind a `LIST`.

    Raises:
        RejectError: A pattern that stands for no or absurdly many files.
    """
    if re.fullmatch(r"LIST(\s+\d+D?)?", value.strip()):
        return [line.strip() for line in listed if line.strip()]
    found = _pattern_of(value)
    if found is None:
        return [value.strip()]
    pattern, counts = found
    if any(len(digits) > _MOST_DIGITS for digits in counts):
        raise RejectError("unreadable", "a pattern of data files with absurd numbers")
    first, last, step = (*map(int, counts), 1)[:3]
    numbers = range(first, last + (1 if step > 0 else -1), step or 1)
    if not 0 < len(numbers) <= _MOST_FILES:
        raise RejectError("unreadable", "a pattern of data files that stands for none")
    return [_numbered(pattern, number) for number in numbers]


def _pattern_of(value: str) -> tuple[str, list[str]] | None:
    """A pattern and the two to four numbers behind it: first, last, step, and axes of a file; None for a plain name."""
    for count in (4, 3, 2):
        pattern, *counts = value.rsplit(maxsplit=count) or [""]
        are_numbers = len(counts) == count and all(re.fullmatch(r"-?\d+", word) for word in counts)
        if are_numbers and _NUMBER.search(pattern):
            return pattern.strip(), counts
    return None


def _numbered(pattern: str, number: int) -> str:
    """The name that C's printf makes of a pattern."""

    def padded(part: re.Match[str]) -> str:
        return str(number).rjust(min(int(part[2] or 0), 32), "0" if part[1] else " ")

    return _NUMBER.sub(padded, pattern)


def read_beside(raw: RawFile, name: str) -> bytes:
    """All bytes of a file beside the header.

    Raises:
        RejectError: It is missing, or its name leads elsewhere.
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if raw.beside is None or not parts or leads_out(name) or leads_out("/".join(parts)):
        raise RejectError("unsupported", "data in a file outside of the header's folder")
    try:
        with raw.beside("/".join(parts)) as other:
            return other.read()
    except (OSError, KeyError) as error:
        if fault_of(error) is not None:
            raise
        raise RejectError("unreadable", "its data file is missing") from error


def inflate(data: bytes, encoding: str, wanted: int) -> bytes:
    """At most `wanted` bytes of gzip, zlib or bzip2 data; `encoding` is `gzip` or `bzip2`.

    Raises:
        RejectError: The data are broken.
    """
    try:
        if encoding == "bzip2":
            return bz2.BZ2Decompressor().decompress(data, wanted)
        return zlib.decompressobj(wbits=47).decompress(data, wanted)
    except (zlib.error, OSError, EOFError, ValueError) as error:
        raise RejectError("undecodable", type(error).__name__) from error
