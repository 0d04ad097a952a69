"""HDF5 files: arrays of images (PatchCamelyon), and k-space of MR scanners (fastMRI).

The k-space reconstruction is that of Roemer et al. 1990, "The NMR phased array": each coil's k-space goes through a
centred, orthonormal inverse FFT, the magnitudes are squared, summed over coils, and the root taken; the centre of the
field of view is cut out where the file states its size.

Arrays whose values lie in other files (external storage, external links, virtual datasets of other files) are refused:
whoever wrote the file would choose which file of this machine is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from ingest.raw.budget import claim_array
from ingest.raw.items import RawFile, RejectError
from ingest.readers.base import (
    Pixels,
    RawImage,
    ReadOptions,
    chosen_frames,
    is_mask_name,
    percentile_range,
    wanted_arrays,
)
from ingest.readers.hdf5_links import own_array
from ingest.readers.stacks import array_images

_FIRST = ("reconstruction_rss", "reconstruction_esc", "images", "image", "x", "data")
_FREE_BYTES: Final = 64 << 20
"""What the values of any file may take, however small it is: arrays may be left unwritten."""


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The images of the named array; else a finished reconstruction, k-space, or the largest image-like array."""
    import h5py

    with raw.open() as stream:
        try:
            file = h5py.File(stream, "r")
        except OSError as error:
            raise RejectError("unreadable", type(error).__name__) from error
        with file:
            name = next(iter(wanted_arrays(options.frames, file)), "") or _choose(h5py, file)
            array = own_array(file, name)
            if array is None:
                raise RejectError("no_image", "no array of images")
            if array.nbytes > max(_FREE_BYTES, raw.size * options.limits.max_ratio):
                raise RejectError("decompression_bomb", f"{array.nbytes} bytes of values in a file of {raw.size}")
            claim_array(array.chunks or (), array.dtype, options.limits, "a chunk", copies=2)
            group = _patient(file)
            if np.issubdtype(array.dtype, np.complexfloating):
                yield from _kspace_images(file, array, options, group)
            else:
                yield from array_images(array, options, group=group)


def _choose(h5py: Any, file: Any) -> str:
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and len(item.shape) >= 2 and min(item.shape[-3:-1] or (0,)) > 1:
            found[name] = item

    file.visititems(visit)
    for name in (*_FIRST, "kspace"):
        if name in found:
            return name
    images = {name: item for name, item in found.items() if item.dtype.kind in "uif" and not is_mask_name(name)}
    return max(sorted(images), key=lambda name: images[name].size, default="")


def _patient(file: Any) -> str:
    value = file.attrs.get("patient_id", "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _kspace_images(file: Any, kspace: Any, options: ReadOptions, group: str) -> Iterator[RawImage]:
    """`(slices, coils, H, W)` or, of one coil, `(slices, H, W)`."""
    if len(kspace.shape) not in (3, 4):
        raise RejectError("unsupported", "k-space of other dimensions")
    claim_array(kspace.shape[1:], kspace.dtype, options.limits, "k-space of a slice", copies=4)
    size = _field_of_view(file)
    numbers = list(chosen_frames(kspace.shape[0], options.frames))
    claim_array((len(numbers), *kspace.shape[-2:]), 4, options.limits, "reconstructed slices", copies=2)
    slices = [root_sum_of_squares(np.asarray(kspace[number]), size) for number in numbers]
    low, high = percentile_range(np.stack(slices)) if slices else (0.0, 1.0)
    for number, pixels in zip(numbers, slices, strict=True):
        frame = f"f{number:06d}"
        yield RawImage(pixels=pixels, frame=frame, bit_depth=32, low=low, high=high, part_of_volume=True, group=group)


def root_sum_of_squares(kspace: Pixels, size: tuple[int, int] | None = None) -> Pixels:
    """The magnitude image of one slice.

    Args:
        kspace: `(coils, H, W)` or `(H, W)` complex, zero frequency in the centre.
        size: Height and width of the centre to keep.

    Returns:
        `(H, W)` float32.
    """
    coils = kspace if kspace.ndim == 3 else kspace[None]
    shifted = np.fft.ifftshift(coils, axes=(-2, -1))
    images = np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))
    combined: Pixels = np.sqrt((np.abs(images) ** 2).sum(axis=0)).astype(np.float32)
    if size is None:
        return combined
    height, width = min(size[0], combined.shape[0]), min(size[1], combined.shape[1])
    top, left = (combined.shape[0] - height) // 2, (combined.shape[1] - width) // 2
    return combined[top : top + height, left : left + width]


def _field_of_view(file: Any) -> tuple[int, int] | None:
    """Height and width of the reconstruction, from the ISMRMRD header; nothing else of that header is looked at."""
    found = own_array(file, "ismrmrd_header")
    if found is None or found.size > 1:
        return None
    header = found[()]
    text = header.decode("utf-8", "replace") if isinstance(header, bytes) else str(header)
    space = re.search(r"<reconSpace>.*?<matrixSize>\s*<x>(\d+)</x>\s*<y>(\d+)</y>", text, re.DOTALL)
    return (int(space[1]), int(space[2])) if space else None
