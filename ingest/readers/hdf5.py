"""HDF5 files: arrays of images (PatchCamelyon), and k-space of MR scanners (fastMRI).

The k-space reconstruction is that of Roemer et al. 1990, "The NMR phased array": each coil's k-space goes through a
centred, orthonormal inverse FFT, the magnitudes are squared, summed over coils, and the root taken; the centre of the
field of view is cut out where the file states its size.

Arrays whose values lie in other files (external storage, external links, virtual datasets of other files) are refused:
whoever wrote the file would choose which file of this machine is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import numpy as np

from ingest.raw.budget import claim_array
from ingest.raw.items import RawFile, RejectError
from ingest.readers.arrays import TAKEN, Array, Verdict, images_of, named_arrays, verdict_of, wanted_arrays
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, percentile_range
from ingest.readers.hdf5_links import own_array
from ingest.readers.stacks import array_images

_SAME_IMAGES: Final = ("reconstruction_rss", "reconstruction_esc", "kspace")
"""Arrays that hold the same images in other forms (fastMRI), the one to take first; the last holds none as it is."""

_FREE_BYTES: Final = 64 << 20
"""What the values of any file may take, however small it is: arrays may be left unwritten."""

_Found = tuple[tuple[int, ...], Any]
"""Shape and type of an array."""


def read(raw: RawFile, options: ReadOptions) -> Iterator[RawImage]:
    """The images of the named arrays; else of all arrays but masks and labels, and of a k-space its reconstruction."""
    import h5py

    num_bytes = 0

    def images(array: Array) -> Iterator[RawImage]:
        nonlocal num_bytes
        values = own_array(file, array.name)
        if values is None:
            raise RejectError("no_image", "no array of images")
        num_bytes += values.nbytes
        if num_bytes > max(_FREE_BYTES, raw.size * options.limits.max_ratio):
            raise RejectError("decompression_bomb", f"{num_bytes} bytes of values in a file of {raw.size}")
        claim_array(values.chunks or (), values.dtype, options.limits, "a chunk", copies=2)
        prefix = f"{array.frame}-" if array.frame else ""
        if np.issubdtype(values.dtype, np.complexfloating):
            yield from _kspace_images(file, array.name, values, options, prefix=prefix, group=group)
        else:
            yield from array_images(values, options, prefix=prefix, group=group)

    with raw.open() as stream:
        try:
            file = h5py.File(stream, "r")
        except OSError as error:
            raise RejectError("unreadable", type(error).__name__) from error
        with file:
            group = _patient(file)
            yield from images_of(_arrays(h5py, file, options), images)


def _arrays(h5py: Any, file: Any, options: ReadOptions) -> list[Array]:
    """The arrays of a file that are taken, and those that are rejects."""
    wanted = wanted_arrays(options.frames, file)
    if len(wanted) == 1:
        return [Array(wanted[0])]
    there = _all_arrays(h5py, file)
    verdicts: dict[str, Verdict | None] = dict.fromkeys(wanted, TAKEN) or {
        name: _verdict(name, there) for name in sorted(there)
    }
    told = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
    return named_arrays(sorted(there), told, is_one=list(told.values()).count(TAKEN) == 1)


def _all_arrays(h5py: Any, file: Any) -> dict[str, _Found]:
    """The arrays that lie in the file itself, each under one of its names."""
    found: dict[str, _Found] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.shape:
            with suppress(TypeError):  # a type that numpy has not
                found[name] = (item.shape, item.dtype)

    file.visititems(visit)
    return found


def _verdict(name: str, there: Mapping[str, _Found]) -> Verdict | None:
    """What becomes of an array: of those that hold the same images, the first is taken."""
    verdict = verdict_of(name, *there[name])
    folder, slash, last = name.rpartition("/")
    if verdict is None or last not in _SAME_IMAGES:
        return verdict
    best = next(form for form in _SAME_IMAGES if f"{folder}{slash}{form}" in there)
    if best == last:
        return TAKEN
    return None if last == _SAME_IMAGES[-1] else ("other_object", f"the images of {best} in another form")


def _patient(file: Any) -> str:
    value = file.attrs.get("patient_id", "")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _kspace_images(
    file: Any, name: str, kspace: Any, options: ReadOptions, *, prefix: str, group: str
) -> Iterator[RawImage]:
    """`(slices, coils, H, W)` or, of one coil, `(slices, H, W)`."""
    if len(kspace.shape) not in (3, 4):
        raise RejectError("unsupported", "k-space of other dimensions")
    claim_array(kspace.shape[1:], kspace.dtype, options.limits, "k-space of a slice", copies=4)
    size = _field_of_view(file, name)
    numbers = list(chosen_frames(kspace.shape[0], options.frames))
    claim_array((len(numbers), *kspace.shape[-2:]), 4, options.limits, "reconstructed slices", copies=2)
    slices = [root_sum_of_squares(np.asarray(kspace[number]), size) for number in numbers]
    low, high = percentile_range(np.stack(slices)) if slices else (0.0, 1.0)
    for number, pixels in zip(numbers, slices, strict=True):
        frame = f"{prefix}f{number:06d}"
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


def _field_of_view(file: Any, name: str) -> tuple[int, int] | None:
    """Height and width of the reconstruction, from the ISMRMRD header beside a k-space; of it nothing else is read."""
    found = own_array(file, f"{name.rpartition('/')[0]}/ismrmrd_header")
    if found is None or found.size > 1:
        return None
    header = found[()]
    text = header.decode("utf-8", "replace") if isinstance(header, bytes) else str(header)
    space = re.search(r"<reconSpace>.*?<matrixSize>\s*<x>(\d+)</x>\s*<y>(\d+)</y>", text, re.DOTALL)
    return (int(space[1]), int(space[2])) if space else None
