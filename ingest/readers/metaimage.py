"""MetaImage volumes: `.mha`, and `.mhd` with its data beside it.

The header is `Key = Value` lines that end with `ElementDataFile`; the data follow it, raw or zlib-compressed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import numpy as np

from ingest.raw.budget import claim
from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions
from ingest.readers.detached import data_names, inflate, read_beside
from ingest.readers.volumes import AS_STORED, Grid, grid_slices

_TYPES: Final = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MOST_LINES: Final = 200
_MOST_AXES: Final = 16
_LARGEST: Final = 1e9
"""Beyond it (NaN too) nothing is a direction, and determinants overflow."""
_MOST_NAME_BYTES: Final = 1 << 22


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Slices `z0000` …; a fourth axis is a series `t0000z0000` …."""
    with raw.open() as stream:
        header, listed = read_header(stream)
        data = _data(header, listed, stream, raw, options)
    channels, count = data.shape[-1], data.ndim - 1
    directions, spacing = _geometry(header, count)
    yield from grid_slices(
        Grid(
            values=data[..., 0] if channels == 1 else data,
            num_space=min(3, count),
            colour=channels in (3, 4) and data.dtype == np.uint8,
            directions=directions,
            spacing=spacing[: min(3, count)],
            bit_depth=data.dtype.itemsize * 8,
        ),
        options,
    )


def read_header(stream: BinaryIO) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """The header's keys and, behind `ElementDataFile = LIST`, the names of the data files.

    The stream is left where attached data begin.

    Raises:
        RejectError: It is no MetaImage header.
    """
    found: dict[str, str] = {}
    for _ in range(_MOST_LINES):
        line = stream.readline(4096)
        name, separator, value = line.decode("latin-1").partition("=")
        if not separator:
            break
        found[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            is_list = value.strip().startswith("LIST")
            return found, tuple(stream.read(_MOST_NAME_BYTES).decode("latin-1").splitlines()) if is_list else ()
    raise RejectError("unreadable", "no MetaImage header")


def _numbers(header: Mapping[str, str], name: str, default: str = "") -> list[float]:
    try:
        return [float(part) for part in header.get(name, default).split()]
    except ValueError as error:
        raise RejectError("unreadable", f"{name} is no list of numbers") from error


def _whole_numbers(header: Mapping[str, str], name: str, default: str = "") -> list[int]:
    try:
        return [int(number) for number in _numbers(header, name, default)]
    except (ValueError, OverflowError) as error:  # NaN and infinities
        raise RejectError("unreadable", f"{name} is no list of whole numbers") from error


def _data(
    header: Mapping[str, str], listed: Sequence[str], stream: BinaryIO, raw: RawFile, options: ReadOptions
) -> Pixels:
    """`(X, Y[, Z[, T]], channels)`."""
    shape = _whole_numbers(header, "DimSize")
    channels = (_whole_numbers(header, "ElementNumberOfChannels", "1") or [1])[0]
    kind = _TYPES.get(header.get("ElementType", "").removesuffix("_ARRAY"))
    if kind is None or not 2 <= len(shape) <= _MOST_AXES or min(shape) < 1 or channels < 1:
        raise RejectError("unsupported", "element type or size")
    voxels = int(np.prod([*shape, channels], dtype=object))
    if voxels > options.limits.max_voxels:
        raise RejectError("decompression_bomb", f"{voxels} values")
    big = any(header.get(name, "").lower() == "true" for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    dtype = np.dtype((">" if big else "<") + kind)
    wanted = voxels * dtype.itemsize
    packed = header.get("CompressedData", "").lower() == "true"
    claim(raw.size + wanted * 2, options.limits, "a volume")
    data = _bytes(header, listed, stream, raw, wanted, packed=packed)
    values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    return values.reshape([*reversed(shape), channels]).transpose([*range(len(shape) - 1, -1, -1), len(shape)])


def _bytes(
    header: Mapping[str, str], listed: Sequence[str], stream: BinaryIO, raw: RawFile, wanted: int, *, packed: bool
) -> bytes:
    name = header["ElementDataFile"]
    if name.upper() == "LOCAL":
        data = stream.read()
        data = inflate(data, "gzip", wanted) if packed else data
    else:
        names = data_names(name, listed)
        share = -(-wanted // max(1, len(names)))
        data = b"".join(_one_file(header, read_beside(raw, name), share, packed=packed) for name in names)
    if len(data) < wanted:
        raise RejectError("undecodable", f"{len(data)} of {wanted} bytes")
    return data[:wanted]


def _one_file(header: Mapping[str, str], data: bytes, wanted: int, *, packed: bool) -> bytes:
    """The values of one data file: behind `HeaderSize` bytes, else at its end."""
    if packed:
        return inflate(data, "gzip", wanted)
    skip = (_whole_numbers(header, "HeaderSize", "-1") or [-1])[0]
    return data[skip : skip + wanted] if skip >= 0 else data[-wanted:]


def _geometry(header: Mapping[str, str], count: int) -> tuple[Any, list[float]]:
    """Directions in LPS, which is the file's frame too, and spacing of the axes."""
    spacing = _numbers(header, "ElementSpacing") or _numbers(header, "ElementSize")
    steps = [*(spacing or [1.0] * count), 1.0, 1.0, 1.0][:3]
    values = _numbers(header, "TransformMatrix") or _numbers(header, "Rotation") or _numbers(header, "Orientation")
    if len(values) != count * count or count < 3:
        return AS_STORED, steps
    matrix = np.array(values).reshape(count, count)[:3, :3]
    if not (np.abs(matrix) < _LARGEST).all() or abs(np.linalg.det(matrix)) < 1e-6:
        return AS_STORED, steps
    return matrix, steps
