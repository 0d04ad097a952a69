"""How volumes become slices: one orientation, one intensity range per volume, one axis, and the spacing respected.

Orientation: that of DICOM pixels as they are stored by scanners, which is how radiologists see them. Volumes of other
formats are brought to LPS order (x to the patient's left, y to the back, z to the head) and cut so that

- axial slices show the patient's right on the left of the picture, and the front on top;
- coronal slices show the patient's right on the left, and the head on top;
- sagittal slices show the front on the left, and the head on top.

Slices are numbered along the normal that DICOM derives from such rows and columns: from the feet to the head, from the
front to the back, and from the patient's left to the right. Files that say nothing of the patient's axes are cut as
they are stored. DICOM files are never turned or flipped. `ORIENTATION.md` beside this file shows it.

Slices of unequal pixel spacing are stretched along the coarser side, so that a circle stays a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ingest.raw.items import RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, percentile_range, window_range
from shards.decode.opencv import require_opencv, scale_linear

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_LARGEST_STRETCH = 8.0

AS_STORED: Final = np.eye(3)
"""Directions of a file that states none: its first axis runs across the picture, its second down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Samples on a grid in space.

    Attributes:
        values: `(X, Y[, Z], …)`: axes of space, then those of a series, then, if `colour`, three or four channels.
        num_space: Axes of space, 2 or 3.
        colour: Whether the last axis holds RGB or RGBA.
        directions: `(3, 3)`: row i is the direction in LPS that axis i runs along.
        spacing: Millimetres per sample along the axes of space.
        bit_depth: Bits stored per raw value.
    """

    values: Pixels
    num_space: int
    colour: bool
    directions: Any
    spacing: Sequence[float]
    bit_depth: int


def grid_slices(grid: Grid, options: ReadOptions) -> Iterator[RawImage]:
    """The slices of every volume of a grid: `z0000` …, those of a series `t0000z0000` ….

    Raises:
        RejectError: There is no image in it, or it is too large.
    """
    values = grid.values[..., :3] if grid.colour else grid.values
    if values.dtype.kind not in "uifb" or values.size == 0:
        raise RejectError("no_image", "no values that are numbers")
    values = values.astype(np.uint8) if values.dtype == np.bool_ else values
    spacing = [*grid.spacing, 1.0, 1.0, 1.0][:3]
    if grid.num_space == 2:
        values = np.expand_dims(values, 2)
    last = values.ndim - grid.colour
    shape = (*values.shape[:3], -1, *values.shape[last:])
    series = values.reshape(shape)
    several = series.shape[3] > 1
    for number in chosen_frames(series.shape[3], options.frames) if several else range(1):
        volume, steps = to_lps(series[:, :, :, number], grid.directions, spacing)
        frame = f"t{number:04d}" if several else ""
        yield from volume_slices(volume, steps, options, frame=frame, bit_depth=grid.bit_depth)


def slice_axis(shape: Sequence[int], spacing: Sequence[float], rule: str) -> int:
    """The array axis that slices are cut across.

    `thinnest` takes the axis of the widest spacing (the one the scanner stepped along); where all spacings agree
    within 10 %, the last, axial for volumes in LPS.
    """
    if rule != "thinnest":
        return _AXES[rule]
    widest = int(np.argmax(spacing[:3]))
    if max(spacing[:3]) <= 1.1 * min(spacing[:3]):
        flat = [axis for axis in range(3) if shape[axis] == 1]
        return flat[0] if flat else 2
    return widest


def volume_slices(
    volume: Pixels,
    spacing: Sequence[float],
    options: ReadOptions,
    *,
    frame: str = "",
    bit_depth: int = 16,
    axis: int = -1,
) -> Iterator[RawImage]:
    """The slices of one `(X, Y, Z)` volume in LPS order.

    Args:
        volume: `(X, Y, Z)`, or `(X, Y, Z, 3)` for colour.
        spacing: Millimetres per voxel along X, Y, Z; zeros and NaN count as 1.
        options: Frame rule and window.
        frame: Put before the slice number, e.g. `t0003`.
        bit_depth: Bits stored per raw value.
        axis: The axis to cut across; -1 follows the rule.
    """
    if volume.shape[0] * volume.shape[1] * volume.shape[2] > options.limits.max_voxels:
        raise RejectError("decompression_bomb", "x".join(map(str, volume.shape)) + " voxels")
    steps = [float(s) if np.isfinite(s) and s > 0 else 1.0 for s in spacing[:3]]
    across = slice_axis(volume.shape, steps, options.frames.axis) if axis < 0 else axis
    windowed = options.window is not None and volume.ndim == 3
    low = high = None
    if volume.dtype != np.uint8:
        low, high = window_range(options.window) if options.window and windowed else percentile_range(volume)
    rows_step, columns_step = [steps[a] for a in (2, 1, 0) if a != across]
    for number in chosen_frames(volume.shape[across], options.frames):
        pixels = _plane(volume, across, number)
        yield RawImage(
            pixels=square_pixels(pixels, rows_step, columns_step),
            frame=f"{frame}z{number:04d}",
            bit_depth=bit_depth,
            low=low,
            high=high,
            windowed=windowed and low is not None,
            part_of_volume=volume.shape[across] > 1 or bool(frame),
        )


def _plane(volume: Pixels, across: int, number: int) -> Pixels:
    """One slice as it is looked at: rows run to the back, or from the head down."""
    if across == 0:
        number = volume.shape[0] - 1 - number
    plane = np.swapaxes(np.moveaxis(volume, across, 0)[number], 0, 1)
    return np.ascontiguousarray(plane if across == 2 else np.flip(plane, 0))


def square_pixels(pixels: Pixels, rows_step: float, columns_step: float) -> Pixels:
    """Stretch the coarser direction until pixels are square; within 5 % they are left alone.

    Raises:
        LibraryError: Values of more than 8 bits, and OpenCV is not installed.
    """
    ratio = rows_step / columns_step
    if 0.95 < ratio < 1.05 or not 1 / _LARGEST_STRETCH < ratio < _LARGEST_STRETCH:
        return pixels
    height, width = pixels.shape[:2]
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    if pixels.dtype == np.uint8:
        return scale_linear(pixels, size)
    cv2 = require_opencv("stretching slices whose pixels are not square")
    return np.asarray(cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))


def to_lps(volume: Pixels, directions: Any, spacing: Sequence[float]) -> tuple[Pixels, list[float]]:
    """Permute and flip a volume into the orientation closest to LPS.

    Args:
        volume: Three axes of space, then any others.
        directions: `(3, 3)`, row i is the direction in LPS that the array's axis i runs along.
        spacing: Millimetres per voxel along each axis.

    Returns:
        The volume and its spacing in the new order of axes.
    """
    matrix = np.abs(np.asarray(directions, dtype=float))
    order: list[int] = [-1, -1, -1]
    for _ in range(3):
        axis, target = np.unravel_index(int(np.argmax(matrix)), matrix.shape)
        order[int(target)] = int(axis)
        matrix[axis, :] = matrix[:, target] = -1
    turned = np.transpose(volume, [*order, *range(3, volume.ndim)])
    backwards = [target for target, axis in enumerate(order) if directions[axis][target] < 0]
    return np.flip(turned, tuple(backwards)), [float(spacing[axis]) for axis in order]
