"""Where the crops of a group lie in their images, as numbers that torch and a kernel work from alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Crops
from shards.decode.boxes import crop_boxes
from shards.decode.native_decoder import NativeUnavailableError, native_boxes

__all__ = ["COLUMNS", "Cuts", "cuts_of", "kernel_table"]

COLUMNS: Final = 15
"""Of `kernel_table`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """How each crop of a group is made: a part of the image is resized to `target`, a square is taken at `corner`.

    A random crop is cut first and resized then; a centre crop is resized first, so its part is the whole image.

    Attributes:
        origin: `(B, num, 2)` int64, x and y of the part in the upright image.
        extent: `(B, num, 2)` int64, its width and height.
        target: `(B, num, 2)` int64, width and height that it is resized to.
        corner: `(B, num, 2)` int64, x and y of the crop in the resized part.
        flip: `(B, num)` bool, whether the crop is mirrored.
    """

    origin: NDArray[np.int64]
    extent: NDArray[np.int64]
    target: NDArray[np.int64]
    corner: NDArray[np.int64]
    flip: NDArray[np.bool_]


def cuts_of(seeds: NDArray[np.uint64], group: int, crops: Crops, sizes: NDArray[np.int64]) -> Cuts:
    """The crops of one group.

    Args:
        seeds: `(B,)`, of the boxes.
        group: Position of `crops` among the groups.
        crops: What to take.
        sizes: `(B, 2)` width and height of the upright images.
    """
    try:
        boxes = native_boxes(seeds, group, crops, sizes[:, 0], sizes[:, 1])
    except NativeUnavailableError:
        boxes = crop_boxes(seeds, group, crops, sizes[:, 0], sizes[:, 1])
    corner, side = boxes.box[..., :2], boxes.box[..., 2:]
    whole = np.broadcast_to(sizes[:, None], side.shape)
    zero, square = np.zeros_like(whole), np.full_like(whole, crops.size_px)
    if crops.kind == "random":
        return Cuts(
            origin=corner.astype(np.int64),
            extent=side.astype(np.int64),
            target=square,
            corner=zero,
            flip=boxes.flip,
        )
    return Cuts(
        origin=zero,
        extent=whole,
        target=np.rint(whole * crops.size_px / side).astype(np.int64),
        corner=np.rint(corner * crops.size_px / side).astype(np.int64),
        flip=boxes.flip,
    )


def kernel_table(
    cuts: Cuts,
    sources: Sequence[tuple[int, int, int, int]],
    places: NDArray[np.int64],
    *,
    turned: NDArray[np.bool_],
    size_px: int,
    channels: int,
) -> NDArray[np.int64]:
    """One row a crop of what the kernel reads, `(B * num, COLUMNS)`.

    Address of the part and bytes to its next channel; then, each for the axis that is resized first and for the other:
    bytes to the next pixel, extent, target, corner, whether mirrored; place of the crop in the output, and bytes there
    to the next value along the two axes.

    Args:
        cuts: Of the group.
        sources: For each image its address and the bytes to the next channel, column and row.
        places: `(B,)` of each image in the output `(rows, num, size_px, size_px, channels)`.
        turned: `(B,)`, whether rows are resized before columns, as for an image that EXIF has lie on its side.
        size_px: Side of the crops.
        channels: Of images and crops.
    """
    num = cuts.flip.shape[1]
    address, to_channel, *steps = np.array(sources, np.int64).reshape(-1, 4).T[:, :, None]
    step = np.broadcast_to(np.stack(steps, axis=-1), cuts.origin.shape)
    start = address + (cuts.origin * step).sum(-1)
    mirrored = np.stack([cuts.flip, np.zeros_like(cuts.flip)], axis=-1)
    crop_bytes = size_px * size_px * channels
    place = (places[:, None] * num + np.arange(num)) * crop_bytes
    out_step = np.broadcast_to(np.array([channels, size_px * channels]), step.shape)
    on_its_side = turned[:, None, None]

    def in_order(values: NDArray[Any]) -> NDArray[np.int64]:
        return np.where(on_its_side, values[..., ::-1], values)

    pairs = [in_order(values) for values in (step, cuts.extent, cuts.target, cuts.corner, mirrored)]
    table = np.concatenate(
        [
            start[..., None],
            np.broadcast_to(to_channel, start.shape)[..., None],
            *pairs,
            place[..., None],
            in_order(out_step),
        ],
        axis=-1,
        dtype=np.int64,
    )
    return np.ascontiguousarray(table.reshape(-1, COLUMNS))
