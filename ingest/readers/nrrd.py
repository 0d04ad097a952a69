"""NRRD volumes (`.nrrd`, and `.nhdr` with its data beside it)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames
from ingest.readers.volumes import to_ras, volume_slices

_FLIPS = {"left": -1.0, "posterior": -1.0, "inferior": -1.0}


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """Slices `z0000` …; a fourth axis of more than three values is a series `t0000z0000` …."""
    import nrrd

    with raw.open() as stream:
        try:
            header = nrrd.read_header(stream)
            _check(header, options)
            data = _data(nrrd, header, stream, raw)
        except (nrrd.NRRDError, ValueError, KeyError, OSError, EOFError, IndexError) as error:
            raise RejectError("unreadable", type(error).__name__) from error
    depth = data.dtype.itemsize * 8
    domain = _domain_axes(header, data.ndim)
    others = [axis for axis in range(data.ndim) if axis not in domain]
    data = np.moveaxis(data, others, range(data.ndim - len(others), data.ndim)) if others else data
    matrix, spacing = _geometry(header, domain)
    while data.ndim < 3:
        data, matrix, spacing = data[..., None], np.eye(3), [*spacing, 1.0]
    if data.ndim == 3 or (data.ndim == 4 and data.shape[3] == 3 and data.dtype == np.uint8):
        volume, spacing = to_ras(data, matrix, spacing)
        yield from volume_slices(volume, spacing, options, bit_depth=depth)
        return
    series = data.reshape(*data.shape[:3], -1)
    for number in chosen_frames(series.shape[3], options.frames):
        volume, steps = to_ras(series[..., number], matrix, spacing)
        yield from volume_slices(volume, steps, options, frame=f"t{number:04d}", bit_depth=depth)


def _data(nrrd: Any, header: Any, stream: Any, raw: RawFile) -> Pixels:
    detached = header.get("data file") or header.get("datafile")
    if not detached:
        return np.asarray(nrrd.read_data(header, stream))
    if not isinstance(detached, str) or "/" in detached or raw.beside is None:
        raise RejectError("unsupported", "data in several or other files")
    inner = {name: value for name, value in header.items() if name not in ("data file", "datafile")}
    with raw.beside(detached) as other:
        return np.asarray(nrrd.read_data(inner, other))


def _check(header: Any, options: ReadOptions) -> None:
    if int(np.prod([int(n) for n in header["sizes"]], dtype=object)) > options.limits.max_voxels:
        raise RejectError("decompression_bomb", "x".join(str(int(n)) for n in header["sizes"]) + " voxels")


def _domain_axes(header: Any, count: int) -> list[int]:
    """The axes of space; the others hold colours or a series."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    if len(kinds) == count:
        domain = [axis for axis, kind in enumerate(kinds) if kind in ("domain", "space", "none", "???")]
        if 2 <= len(domain) <= 3:
            return domain
    return list(range(min(count, 3)))


def _geometry(header: Any, domain: list[int]) -> tuple[Any, list[float]]:
    """Direction cosines (rows are axes, in RAS) and spacing of the three axes of space."""
    directions = header.get("space directions")
    if directions is not None:
        matrix = np.array([directions[axis] for axis in domain], dtype=float)
        if matrix.shape == (3, 3) and np.isfinite(matrix).all():
            signs = [_FLIPS.get(word, 1.0) for word in str(header.get("space", "right-anterior-superior")).split("-")]
            return matrix * np.array(signs if len(signs) == 3 else [1.0] * 3), list(np.linalg.norm(matrix, axis=1))
    spacings = header.get("spacings")
    steps = [float(spacings[axis]) if spacings is not None else 1.0 for axis in domain]
    return np.eye(3), [*steps, 1.0, 1.0][:3]
