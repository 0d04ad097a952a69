"""What the stream gives at each step: one rank's part of a global batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob
from shards.stream.columns import ColumnValues


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One rank's part of a global batch.

    Attributes:
        views: One array a group of crops, `(B, num, size_px, size_px, C)` uint8; empty where nothing is decoded.
        blobs: The compressed images where nothing is decoded (bytes, or read-only views of bytes). With the decoder
            `device`, those that the device is to decode into their slots of `views`, and empty bytes in place of the
            others. Else empty.
        keys: `B` sample keys.
        seeds: `(B,)` uint64, the random key of each sample; the same on any topology.
        epoch: Epoch, from 0.
        index: Number of the global batch in its epoch, from 0.
        substituted: Slots that hold a substitute for a bad sample.
        columns: Name → values of each column of the user's own that was asked for.
    """

    views: tuple[NDArray[np.uint8], ...]
    blobs: tuple[Blob, ...]
    keys: tuple[str, ...]
    seeds: NDArray[np.uint64]
    epoch: int
    index: int
    substituted: tuple[int, ...]
    columns: Mapping[str, ColumnValues] = field(default_factory=dict)
