"""MetaImage volumes: `.mha`, and `.mhd` with its data beside it.

The header is `Key = Value` lines that end with `ElementDataFile`; the data follow it, raw or zlib-compressed.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

import numpy as np

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames
from ingest.readers.volumes import to_ras, volume_slices

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


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Slices `z0000` …; a fourth axis is a series `t0000z0000` …."""
    with raw.open() as stream:
        header = _header(stream)
        data = _data(header, stream, raw, options)
    depth = data.dtype.itemsize * 8
    count = len(_numbers(header, "DimSize"))
    matrix, spacing = _geometry(header, count)
    channels = data.shape[-1]
    volume = data[..., 0] if channels == 1 else data
    while count < 3:
        volume, count = np.expand_dims(volume, count), count + 1
    if channels == 3 and data.dtype == np.uint8 and count == 3:
        turned, steps = to_ras(volume, matrix, spacing)
        yield from volume_slices(turned, steps, options, bit_depth=8)
        return
    if count == 3 and channels == 1:
        turned, steps = to_ras(volume, matrix, spacing)
        yield from volume_slices(turned, steps, options, bit_depth=depth)
        return
    series = volume.reshape(*volume.shape[:3], -1)
    for number in chosen_frames(series.shape[3], options.frames):
        turned, steps = to_ras(series[..., number], matrix, spacing)
        yield from volume_slices(turned, steps, options, frame=f"t{number:04d}", bit_depth=depth)


def _header(stream: BinaryIO) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for _ in range(_MOST_LINES):
        line = stream.readline(4096)
        name, separator, value = line.decode("latin-1").partition("=")
        if not separator:
            break
        found[name.strip()] = value.strip()
        if name.strip() == "ElementDataFile":
            return found
    raise RejectError("unreadable", "no MetaImage header")


def _numbers(header: Mapping[str, str], name: str, default: str = "") -> list[float]:
    try:
        return [float(part) for part in header.get(name, default).split()]
    except ValueError as error:
        raise RejectError("unreadable", f"{name} is no list of numbers") from error


def _data(header: Mapping[str, str], stream: BinaryIO, raw: RawFile, options: ReadOptions) -> Pixels:
    """`(X, Y[, Z[, T]], channels)`."""
    shape = [int(n) for n in _numbers(header, "DimSize")]
    channels = int((_numbers(header, "ElementNumberOfChannels", "1") or [1])[0])
    kind = _TYPES.get(header.get("ElementType", "").removesuffix("_ARRAY"))
    if kind is None or not shape or min(shape) < 1 or channels < 1:
        raise RejectError("unsupported", "element type or size")
    voxels = int(np.prod([*shape, channels], dtype=object))
    if voxels > options.limits.max_voxels:
        raise RejectError("decompression_bomb", f"{voxels} values")
    big = any(header.get(name, "").lower() == "true" for name in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB"))
    dtype = np.dtype((">" if big else "<") + kind)
    wanted = voxels * dtype.itemsize
    packed = header.get("CompressedData", "").lower() == "true"
    data = _bytes(header["ElementDataFile"], stream, raw, wanted, packed=packed)
    values = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="), copy=False)
    return values.reshape([*reversed(shape), channels]).transpose([*range(len(shape) - 1, -1, -1), len(shape)])


def _bytes(name: str, stream: BinaryIO, raw: RawFile, wanted: int, *, packed: bool) -> bytes:
    if name.upper() == "LOCAL":
        data = stream.read()
    elif "/" in name or "\\" in name or " " in name or re.search(r"%\d*d", name) or raw.beside is None:
        raise RejectError("unsupported", "data in several or other files")
    else:
        try:
            with raw.beside(name) as other:
                data = other.read()
        except (OSError, KeyError) as error:
            raise RejectError("unreadable", "its data file is missing") from error
    if packed:
        try:
            data = zlib.decompressobj(wbits=47).decompress(data, wanted + 1)
        except zlib.error as error:
            raise RejectError("unreadable", "zlib.error") from error
    if len(data) < wanted:
        raise RejectError("undecodable", f"{len(data)} of {wanted} bytes")
    return data[-wanted:] if name.upper() != "LOCAL" and not packed else data[:wanted]


def _geometry(header: Mapping[str, str], count: int) -> tuple[Any, list[float]]:
    """Directions in RAS (the file's are LPS) and spacing of three axes."""
    spacing = _numbers(header, "ElementSpacing") or _numbers(header, "ElementSize")
    steps = [*(spacing or [1.0] * count), 1.0, 1.0, 1.0][:3]
    values = _numbers(header, "TransformMatrix") or _numbers(header, "Rotation") or _numbers(header, "Orientation")
    if len(values) != count * count or count < 3:
        return np.diag([-1.0, -1.0, 1.0]), steps
    matrix = np.array(values).reshape(count, count)[:3, :3]
    if abs(np.linalg.det(matrix)) < 1e-6:
        matrix = np.eye(3)
    return matrix * np.array([-1.0, -1.0, 1.0]), steps
