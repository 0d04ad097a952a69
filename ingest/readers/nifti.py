"""NIfTI-1/2 and Analyze volumes (`.nii`, `.nii.gz`), three to five dimensions, colour ones too."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import RawImage, ReadOptions, chosen_frames
from ingest.readers.volumes import volume_slices


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Slices `z0000` …; volumes of a series are `t0000z0000` …, at most `max_frames` of each."""
    import nibabel

    image = _load(raw, options)
    _check(image, options)
    closest: Any = nibabel.as_closest_canonical(image)  # type: ignore[no-untyped-call]  # has no annotations
    spacing = closest.header.get_zooms()[:3]
    volume = _squeeze(closest)
    depth = int(image.header.get_data_dtype().itemsize * 8)
    if volume.dtype.names:
        volume = np.stack([volume[name] for name in volume.dtype.names[:3]], axis=-1)
        yield from volume_slices(volume, spacing, options, bit_depth=8)
        return
    if volume.ndim == 3:
        yield from volume_slices(volume, spacing, options, bit_depth=depth)
        return
    series = volume.reshape(*volume.shape[:3], -1)
    for number in chosen_frames(series.shape[3], options.frames):
        yield from volume_slices(series[..., number], spacing, options, frame=f"t{number:04d}", bit_depth=depth)


def _load(raw: RawFile, options: ReadOptions) -> Any:
    from nibabel.filebasedimages import ImageFileError
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Image
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    data = raw.read()
    if data[:2] == b"\x1f\x8b":
        data = _inflate(data, options)
    kind = Nifti2Image if data[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else Nifti1Image
    try:
        return kind.from_bytes(data)
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, OSError) as error:
        raise RejectError("unreadable", type(error).__name__) from error


def _inflate(data: bytes, options: ReadOptions) -> bytes:
    most = min(options.limits.max_file_bytes, max(1 << 20, int(len(data) * options.limits.max_ratio)))
    parts: list[bytes] = []
    size = 0
    while data:  # one member after the other, zeros behind them; `gzip` does the same in steps of 8 KiB
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(data, most + 1 - size))
        except zlib.error as error:
            raise RejectError("unreadable", "BadGzipFile") from error
        size += len(parts[-1])
        if size > most:
            raise RejectError("decompression_bomb", f"more than {most} bytes")
        if not member.eof:
            raise RejectError("unreadable", "EOFError")
        data = member.unused_data.lstrip(b"\0")
    return b"".join(parts)


def _check(image: Any, options: ReadOptions) -> None:
    shape = image.shape
    if len(shape) < 2 or min(shape, default=0) < 1:
        raise RejectError("no_image", "no 2-D plane")
    if int(np.prod([int(n) for n in shape], dtype=object)) > options.limits.max_voxels:
        raise RejectError("decompression_bomb", "x".join(map(str, shape)) + " voxels")


def _squeeze(image: Any) -> Any:
    """The array with at least three axes; integers stay integers where the header does not scale them."""
    slope, inter = image.header.get_slope_inter() if hasattr(image.header, "get_slope_inter") else (1, 0)
    plain = slope in (None, 1) and inter in (None, 0)
    volume = np.asanyarray(image.dataobj)
    if not plain and volume.dtype == np.float64:
        volume = volume.astype(np.float32)
    if volume.ndim == 2:
        volume = volume[:, :, None]
    while volume.ndim > 3 and volume.shape[-1] == 1:
        volume = volume[..., 0]
    if np.iscomplexobj(volume):
        volume = np.abs(volume)
    return volume
