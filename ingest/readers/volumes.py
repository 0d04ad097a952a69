"""How volumes become slices: one intensity range a volume, one axis, and the spacing respected.

Arrays are `(X, Y, Z)` in the orientation closest to RAS (x to the right, y to the front, z up). A slice is turned to
the usual view: axial with the front on top, coronal and sagittal with the head on top. Slices of unequal pixel
spacing are stretched along the coarser side, so that a circle stays a circle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from ingest.raw.items import RejectError
from ingest.readers.base import Pixels, RawImage, ReadOptions, chosen_frames, percentile_range, window_range

_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}
_LARGEST_STRETCH = 8.0


def slice_axis(shape: Sequence[int], spacing: Sequence[float], rule: str) -> int:
    """The array axis that slices are cut across.

    `thinnest` takes the axis of the widest spacing (the one the scanner stepped along); where all spacings agree
    within 10 %, the last, axial for RAS volumes.
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
    """The slices of one `(X, Y, Z)` volume in RAS.

    Args:
        volume: `(X, Y, Z)`, or `(X, Y, Z, 3)` uint8 for colour.
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
    colour = volume.ndim == 4
    low = high = None
    if not colour and volume.dtype != np.uint8:
        low, high = window_range(options.window) if options.window else percentile_range(volume)
    rows_step, columns_step = [steps[a] for a in (2, 1, 0) if a != across]
    for number in chosen_frames(volume.shape[across], options.frames):
        plane = np.moveaxis(volume, across, 0)[number]
        pixels = np.ascontiguousarray(np.flip(np.swapaxes(plane, 0, 1), 0))
        yield RawImage(
            pixels=square_pixels(pixels, rows_step, columns_step),
            frame=f"{frame}z{number:04d}",
            bit_depth=bit_depth,
            low=low,
            high=high,
            windowed=options.window is not None and low is not None,
            part_of_volume=volume.shape[across] > 1 or bool(frame),
        )


def square_pixels(pixels: Pixels, rows_step: float, columns_step: float) -> Pixels:
    """Stretch the coarser direction until pixels are square; within 5 % they are left alone."""
    ratio = rows_step / columns_step
    if 0.95 < ratio < 1.05 or not 1 / _LARGEST_STRETCH < ratio < _LARGEST_STRETCH:
        return pixels
    height, width = pixels.shape[:2]
    size = (width, round(height * ratio)) if ratio > 1 else (round(width / ratio), height)
    real = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    return np.asarray(cv2.resize(real, size, interpolation=cv2.INTER_LINEAR))


def to_ras(volume: Pixels, directions: Any, spacing: Sequence[float]) -> tuple[Pixels, list[float]]:
    """Permute and flip a volume into the orientation closest to RAS.

    Args:
        volume: Three axes of space, then any others.
        directions: `(3, 3)`, row i is the direction in RAS that the array's axis i runs along.
        spacing: Millimetres a voxel along each axis.

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
