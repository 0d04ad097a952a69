"""NRRD volumes (`.nrrd`, and `.nhdr` with its data beside it), by the format's definition (teem, NRRD0001 to 0005).

The header is lines `field: value` up to a blank line. The axes of space come from `kinds`, their directions from
`space directions` in the frame that `space` names, in its long or short form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

import numpy as np

from ingest.raw.budget import claim
from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions
from ingest.readers.detached import data_names, inflate, read_beside
from ingest.readers.volumes import AS_STORED, Grid, grid_slices
from ingest.settings import LimitSettings

_TYPES: Final = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "signed long long int": "i8",
    "float": "f4",
    "double": "f8",
}
_ENCODINGS: Final = {
    "raw": "raw",
    **dict.fromkeys(("txt", "text", "ascii"), "text"),
    "hex": "hex",
    **dict.fromkeys(("gz", "gzip"), "gzip"),
    **dict.fromkeys(("bz2", "bzip2"), "bzip2"),
}
_SHORT: Final = {"r": 0, "l": 0, "a": 1, "p": 1, "s": 2, "i": 2}
_COLOURS: Final = ("rgb-color", "rgba-color", "3-color", "4-color")
_MOST_LINES: Final = 1 << 17
_LEAST: Final = 1e-15
_LARGEST: Final = 1e9
"""Lengths of a sample, whatever their unit; others (NaN and 0 too) are none, and their products are no numbers."""
_COPIES: Final = {"text": 40, "hex": 5}
"""How many times its bytes a volume takes while it is read; 2 for the other encodings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a header says.

    Attributes:
        fields: Field → value, both as written, names in lower case.
        listed: The lines behind `data file: LIST`.
        sizes: Samples along each axis, fastest first.
    """

    fields: Mapping[str, str]
    listed: tuple[str, ...] = ()
    sizes: tuple[int, ...] = field(default=())

    def get(self, *names: str) -> str:
        """The value of the first of these fields that is there, else empty."""
        return next((self.fields[name] for name in names if name in self.fields), "")


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Slices `z0000` …; a fourth axis that is no colour is a series `t0000z0000` …."""
    with raw.open() as stream:
        header = read_header(stream)
        values = int(np.prod(header.sizes, dtype=object))
        if values > options.limits.max_voxels:
            raise RejectError("decompression_bomb", "x".join(map(str, header.sizes)) + " voxels")
        claim(raw.size, options.limits, "the file")
        data = _data(header, stream, raw, values, options.limits)
    yield from grid_slices(grid_of(header, data), options)


def read_header(stream: BinaryIO) -> Header:
    """The header; the stream is left where attached data begin.

    Raises:
        RejectError: It is no NRRD header.
    """
    if not re.fullmatch(rb"NRRD000\d\s*", stream.readline(64)):
        raise RejectError("unreadable", "no NRRD header")
    fields: dict[str, str] = {}
    listed: list[str] = []
    for _ in range(_MOST_LINES):
        line = stream.readline(1 << 16)
        text = line.decode("latin-1").strip()
        if not text:
            if line and listed == [] and not _lists_files(fields):
                break
            if not line:
                break
            continue
        if _lists_files(fields):
            listed.append(text)
        elif not text.startswith("#") and ":=" not in text:
            name, separator, value = text.partition(":")
            if not separator:
                raise RejectError("unreadable", "a header line without a field")
            fields.setdefault(name.strip().lower(), value.strip())
    return Header(fields=fields, listed=tuple(listed), sizes=_sizes(fields))


def _lists_files(fields: Mapping[str, str]) -> bool:
    return any(fields.get(name, "").startswith("LIST") for name in ("data file", "datafile"))


def _sizes(fields: Mapping[str, str]) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in fields.get("sizes", "").split())
        dimension = int(fields.get("dimension", "0"))
    except ValueError as error:
        raise RejectError("unreadable", "sizes that are no numbers") from error
    if not 1 < len(sizes) <= 16 or len(sizes) != dimension or min(sizes) < 1:
        raise RejectError("unreadable", "sizes that fit no image")
    return sizes


def _data(header: Header, stream: BinaryIO, raw: RawFile, values: int, limits: LimitSettings) -> Pixels:
    """`sizes` values, the first axis the fastest."""
    kind = _TYPES.get(header.get("type").lower())
    encoding = _ENCODINGS.get(header.get("encoding").lower(), "")
    if not kind or not encoding:
        raise RejectError("unsupported", "type or encoding")
    dtype = np.dtype((">" if header.get("endian").lower() == "big" else "<") + kind)
    skipped = max(0, _count(header, "byte")) if encoding in ("gzip", "bzip2") else 0
    claim(values * dtype.itemsize * _COPIES.get(encoding, 2) + skipped, limits, "a volume")
    detached = header.get("data file", "datafile")
    if detached:
        names = data_names(detached, header.listed)
        share = -(-values // max(1, len(names)))
        data = b"".join(_unpacked(header, read_beside(raw, name), encoding, share * dtype.itemsize) for name in names)
    else:
        data = _unpacked(header, stream.read(), encoding, values * dtype.itemsize)
    if encoding == "text":
        flat = _numbers(data, dtype)
    else:
        flat = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
    if flat.size < values:
        raise RejectError("undecodable", f"{flat.size} of {values} values")
    return np.asarray(flat[:values].astype(dtype.newbyteorder("="), copy=False).reshape(header.sizes, order="F"))


def _numbers(text: bytes, dtype: np.dtype[Any]) -> Pixels:
    try:
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and what is out of range, as integers
            return np.array(text.replace(b",", b" ").split()).astype(np.float64).astype(dtype)
    except ValueError as error:
        raise RejectError("undecodable", "text that is no list of numbers") from error


def _unpacked(header: Header, data: bytes, encoding: str, wanted: int) -> bytes:
    """One file's bytes without the skipped lines and bytes."""
    lines, skip = (_count(header, name) for name in ("line", "byte"))
    data = data[_after_lines(data, lines) :]
    if encoding == "hex":
        return _from_hex(data)
    if encoding in ("gzip", "bzip2"):
        data = inflate(data, encoding, wanted + max(0, skip))
    if encoding == "text":
        return data
    return data[-wanted:] if skip < 0 else data[skip:]


def _after_lines(data: bytes, lines: int) -> int:
    """Where the data begin after so many lines.

    Raises:
        RejectError: There are fewer.
    """
    at = 0
    for _ in range(lines):
        at = data.find(b"\n", at) + 1
        if at == 0:
            raise RejectError("unreadable", "fewer lines than are to be skipped")
    return at


def _from_hex(data: bytes) -> bytes:
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError as error:
        raise RejectError("undecodable", "no hexadecimal digits") from error


def _count(header: Header, what: str) -> int:
    try:
        return int(header.get(f"{what} skip", f"{what}skip") or 0)
    except ValueError as error:
        raise RejectError("unreadable", f"{what} skip is no number") from error


def grid_of(header: Header, data: Pixels) -> Grid:
    """The samples on their grid in space: axes of space first, then colour or series."""
    kinds = [kind.lower() for kind in header.get("kinds").split()]
    kinds = kinds if len(kinds) == data.ndim else [""] * data.ndim
    vectors = _vectors(header, data.ndim)
    space = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space")]
    if not space and any(vectors):
        space = [axis for axis, vector in enumerate(vectors) if vector]
    if not 2 <= len(space) <= 3:
        space = [axis for axis, kind in enumerate(kinds) if kind not in _COLOURS][: min(3, data.ndim)]
    others = [axis for axis in range(data.ndim) if axis not in space]
    is_colour = len(others) >= 1 and (kinds[others[0]] in _COLOURS or _looks_like_colour(data, others[0]))
    tail = [*others[1:], others[0]] if is_colour else others
    return Grid(
        values=np.moveaxis(data, [*space, *tail], range(data.ndim)),
        num_space=len(space),
        colour=is_colour,
        directions=_directions(header, [vectors[axis] for axis in space]),
        spacing=_spacing(header, [vectors[axis] for axis in space], space),
        bit_depth=data.dtype.itemsize * 8,
    )


def _looks_like_colour(data: Pixels, axis: int) -> bool:
    return data.dtype == np.uint8 and data.shape[axis] in (3, 4) and data.ndim == 4


def _vectors(header: Header, count: int) -> list[tuple[float, ...]]:
    """`space directions` of each axis; empty where there is none."""
    found: list[tuple[float, ...]] = []
    for word, inner in re.findall(r"(none|\(([^)]*)\))", header.get("space directions")):
        try:
            vector = () if word == "none" else tuple(float(part) for part in inner.split(",")[:3])
        except ValueError:
            vector = ()
        found.append(vector if len(vector) in (2, 3) and _LEAST < math.hypot(*vector) < _LARGEST else ())
    return found if len(found) == count else [()] * count


def _directions(header: Header, vectors: list[tuple[float, ...]]) -> Any:
    """Directions of the axes in LPS, or as stored where the header does not say."""
    if len(vectors) != 3 or not all(len(vector) == 3 for vector in vectors):
        return AS_STORED
    matrix = np.array(vectors, dtype=float)
    return matrix * _signs(header.get("space")) / np.linalg.norm(matrix, axis=1, keepdims=True)


def _signs(space: str) -> Any:
    """What turns the named frame into LPS: -1 where an axis points the other way.

    `right-anterior-superior`, `RAS`, `left-posterior-superior-time`, `LPST` …; frames that name no part of the body
    (`scanner-xyz`, `3D-right-handed`) are taken as LPS, the frame of scanners.
    """
    words = space.strip().lower()
    parts = words.split("-") if "-" in words else list(words)
    signs = [1.0, 1.0, 1.0]
    if {part[:1] for part in parts[:3]} <= set(_SHORT) and len(parts) >= 3:
        for axis, part in enumerate(parts[:3]):
            if _SHORT[part[0]] == axis:
                signs[axis] = -1.0 if part[0] in "rai" else 1.0
    return np.array(signs)


def _spacing(header: Header, vectors: list[tuple[float, ...]], space: list[int]) -> list[float]:
    words = header.get("spacings").split()
    steps = []
    for vector, axis in zip(vectors, space, strict=True):
        try:
            stated = float(words[axis]) if axis < len(words) else 1.0
        except ValueError:
            stated = 1.0
        steps.append(float(np.linalg.norm(vector)) if vector else stated)
    return steps
