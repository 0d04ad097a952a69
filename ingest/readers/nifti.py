"""NIfTI-1/2 and Analyze volumes (`.nii`, `.nii.gz`), three to seven dimensions, colour ones too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from ingest.raw.budget import claim
from ingest.raw.items import RawFile, RejectError
from ingest.raw.packed import inflate
from ingest.readers.base import Pixels, RawImage, ReadOptions
from ingest.readers.volumes import AS_STORED, Grid, grid_slices

_COLOUR_INTENTS: Final = (2003, 2004)
"""NIFTI_INTENT_RGB_VECTOR and NIFTI_INTENT_RGBA_VECTOR: the fifth axis holds the channels."""

_TO_LPS: Final = np.array([-1.0, -1.0, 1.0])


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Slices `z0000` …; volumes of a series are `t0000z0000` …, at most `max_frames` of each."""
    image, length = _load(raw, options)
    _check(image, length, options)
    values, colour = _values(image)
    yield from grid_slices(
        Grid(
            values=values,
            num_space=min(3, values.ndim),
            colour=colour,
            directions=_directions(image),
            spacing=[float(step) for step in image.header.get_zooms()[:3]],
            bit_depth=8 if colour else int(image.header.get_data_dtype().itemsize * 8),
        ),
        options,
    )


def _directions(image: Any) -> Any:
    """Rows are the directions of the axes, in LPS (the file's are RAS); as stored where the affine is singular."""
    matrix = np.asarray(image.affine, dtype=float)[:3, :3].T
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not np.isfinite(matrix).all() or (lengths == 0).any():
        return AS_STORED
    return matrix / lengths * _TO_LPS


def _load(raw: RawFile, options: ReadOptions) -> tuple[Any, int]:
    """The image, its values not yet read, and the bytes of the unpacked file."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Image
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    data = raw.read()
    if data[:2] == b"\x1f\x8b":
        data = inflate(data, options.limits)
    kind = Nifti2Image if data[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else Nifti1Image
    try:
        return kind.from_bytes(data), len(data)
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, OSError) as error:
        raise RejectError("unreadable", type(error).__name__) from error


def _check(image: Any, length: int, options: ReadOptions) -> None:
    shape = image.shape
    if len(shape) < 2 or min(shape, default=0) < 1:
        raise RejectError("no_image", "no 2-D plane")
    if int(np.prod([int(n) for n in shape], dtype=object)) > options.limits.max_voxels:
        raise RejectError("decompression_bomb", "x".join(map(str, shape)) + " voxels")
    stored = int(np.prod([int(n) for n in shape], dtype=object)) * image.header.get_data_dtype().itemsize
    offset = getattr(image.dataobj, "offset", 0)
    if not 0 <= offset <= length - stored:
        raise RejectError("undecodable", f"{length} bytes, and the header states {stored} of pixels")
    scaled = _is_plain(image) or image.header.get_data_dtype().itemsize >= 8
    claim(stored * (2 if scaled else 2 + 8 / image.header.get_data_dtype().itemsize), options.limits, "a volume")


def _values(image: Any) -> tuple[Pixels, bool]:
    """The values, real and of native bytes, and whether the last axis is colour.

    Integers stay integers where the header does not scale them.
    """
    plain = _is_plain(image)
    volume = np.asanyarray(image.dataobj)
    if volume.dtype.names:
        return np.stack([volume[name] for name in volume.dtype.names[:3]], axis=-1), True
    if np.iscomplexobj(volume):
        volume = np.abs(volume)
    if not plain and volume.dtype == np.float64:
        volume = volume.astype(np.float32)
    has_channels = volume.ndim == 5 and volume.shape[4] in (3, 4) and volume.dtype == np.uint8
    return volume, has_channels and _intent(image) in _COLOUR_INTENTS


def _is_plain(image: Any) -> bool:
    """Whether the header leaves the stored values as they are."""
    slope, inter = image.header.get_slope_inter() if hasattr(image.header, "get_slope_inter") else (1, 0)
    return slope in (None, 1) and inter in (None, 0)


def _intent(image: Any) -> int:
    try:
        return int(image.header["intent_code"])
    except (KeyError, ValueError, TypeError):
        return 0
