"""What a decoder takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.errors import ConfigError

MAX_PIXELS: Final = 1 << 26
"""Larger images are `UNSUPPORTED`: the bound on what a small, hostile file can make a decoder allocate."""
MAX_SCANS: Final = 100
"""A JPEG of more scans is `UNSUPPORTED`: each of them costs a pass over the whole image."""
MAX_CROP_PX: Final = 4096
MIN_RATIO: Final = 0.05

Blob = bytes | memoryview
Mode = Literal["fast", "exact"]
""" `fast` lets libjpeg reduce by 2, 4 or 8 where the crop stays at least as large as its output; `exact` resizes the
fully decoded pixels. The two give slightly different pixels, so the mode belongs to the identity of a run."""


class Status(IntEnum):
    """What became of one image.

    A JPEG is judged by its markers alone (`shards.decode.header`), so that every decoder on every device gives it the
    same status whatever the crops: damage inside a scan is for checksums to find.
    """

    OK = 0
    CORRUPT = 1
    UNSUPPORTED = 2
    DEFERRED = 3
    """Left to be decoded on a device: the slot is as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops:
    """A group of equally sized crops to take from every image.

    Attributes:
        num: Crops an image.
        size_px: Side of the square output.
        kind: `random` is RandomResizedCrop (Szegedy et al. 2015, as torchvision draws it: ten tries, then the
            centre); `center` resizes the short side to `size_px` and cuts the centre.
        scale: Range of the crop's share of the image area (`random`).
        ratio: Range of the aspect ratio, width over height, drawn log-uniformly (`random`).
        flip_probability: Chance of a horizontal flip (`random`; a centre crop is never flipped).
        interpolation: Resampling filter, antialiased when it reduces.
    """

    num: int = 1
    size_px: int = 224
    kind: Literal["random", "center"] = "random"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if self.num < 1 or not 1 <= self.size_px <= MAX_CROP_PX:
            message = f"crops of num={self.num}, size_px={self.size_px} cannot be taken"
            raise ConfigError(message, hint=f"use num >= 1 and 1 <= size_px <= {MAX_CROP_PX}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ConfigError(f"crop scale {self.scale} is no range of area shares", hint="use 0 < low <= high <= 1")
        if not MIN_RATIO <= self.ratio[0] <= self.ratio[1] <= 1 / MIN_RATIO:
            message = f"crop ratio {self.ratio} is no range of aspect ratios"
            raise ConfigError(message, hint=f"use {MIN_RATIO} <= low <= high <= {1 / MIN_RATIO:g}")
        if not 0 <= self.flip_probability <= 1:
            raise ConfigError(f"flip_probability {self.flip_probability} is no probability", hint="use 0 to 1")


class Decoder(Protocol):
    """Decodes chunks of compressed images into batch slots; safe to call from several threads at once.

    Attributes:
        name: `native`, `library` or `device`.
        mode: How pixels are reduced, see `Mode`.
    """

    name: str
    mode: Mode

    def decode(
        self,
        blobs: Sequence[Blob],
        seeds: NDArray[np.uint64],
        crops: Sequence[Crops],
        out: Sequence[NDArray[np.uint8]],
    ) -> NDArray[np.int32]:
        """Decode every blob once and write all its crops.

        Args:
            blobs: `B` compressed images (JPEG, PNG).
            seeds: `(B,)` uint64, the key of each sample's counter-based generator: the crop boxes and flips are a
                pure function of `(seed, group, crop number, image size)`, the same for every decoder.
            crops: The groups of crops.
            out: One array a group, `(B, num, size_px, size_px, C)` uint8, C 3 (gray images are repeated) or 1
                (colour images are converted by ITU-R 601 luma).

        Returns:
            `(B,)` int32 of `Status`; the slots of images that are not `OK` are left as they were.
        """
        ...


def slot_channels(num_blobs: int, crops: Sequence[Crops], out: Sequence[Any]) -> int:
    """Channels of the output, after checking that `out` (numpy arrays, or torch tensors on a device) fits.

    Raises:
        ValueError: An array has another shape, another type or gaps, or the groups differ in channels.
    """
    if not crops or len(crops) != len(out):
        raise ValueError(f"{len(crops)} groups of crops for {len(out)} output arrays")
    channels = int(out[0].shape[-1]) if len(out[0].shape) else 0
    if channels not in {1, 3}:
        raise ValueError(f"output of {channels} channels; 1 and 3 are possible")
    for group, array in zip(crops, out, strict=True):
        want = (num_blobs, group.num, group.size_px, group.size_px, channels)
        if tuple(array.shape) != want or str(array.dtype) not in {"uint8", "torch.uint8"}:
            raise ValueError(f"output is {array.dtype} {tuple(array.shape)}, needs uint8 {want}")
        if isinstance(array, np.ndarray) and not (array.flags.c_contiguous and array.flags.writeable):
            raise ValueError(f"output {want} is not contiguous or not writeable")
    return channels
