"""What a decoder takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray


class Status(IntEnum):
    """What became of one image."""

    OK = 0
    CORRUPT = 1
    UNSUPPORTED = 2


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
        flip_probability: Chance of a horizontal flip.
        interpolation: Resampling filter, antialiased when it reduces.
    """

    num: int = 1
    size_px: int = 224
    kind: Literal["random", "center"] = "random"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_probability: float = 0.5
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


class Decoder(Protocol):
    """Decodes chunks of compressed images into batch slots; safe to call from several threads at once."""

    name: str

    def decode(
        self,
        blobs: Sequence[bytes | memoryview],
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
