"""The check of compressed images before any is decoded: many in one call, by the extension where it was built.

What it says is what every decoder says (`shards.decode.header`). It takes about 10 µs per image of 65 kB, in Python 60.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shards.decode.base import Blob, Status
from shards.decode.header import ImageHeader, read_header
from shards.decode.native_decoder import NativeUnavailableError, addresses_of, load

__all__ = ["Checked", "check_images"]

_OTHER: Final = 4
"""BV_OTHER of biovfm_decode.h: not a JPEG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is known of `B` images.

    Attributes:
        status: `(B,)` int32 of `Status`. `OK` promises pixels where the image is a JPEG; what other codecs hold is only
            known after decoding.
        is_jpeg: `(B,)` bool.
        upright: `(B, 2)` int32, width and height of JPEGs in pixels after their orientation is applied.
        components: `(B,)` int32, of JPEGs.
        turned: `(B,)` bool, whether the orientation of a JPEG has it lie on its side.
    """

    status: NDArray[np.int32]
    is_jpeg: NDArray[np.bool_]
    upright: NDArray[np.int32]
    components: NDArray[np.int32]
    turned: NDArray[np.bool_]


def check_images(blobs: Sequence[Blob]) -> Checked:
    """Check compressed images."""
    rows = _by_extension(blobs)
    for place in np.flatnonzero(rows[:, 0] == _OTHER).tolist():
        rows[place] = _row(read_header(blobs[place]))
    turned = rows[:, 4] >= 5
    return Checked(
        status=rows[:, 0].copy(),
        is_jpeg=rows[:, 3] > 0,
        upright=np.where(turned[:, None], rows[:, 2:0:-1], rows[:, 1:3]),
        components=rows[:, 3],
        turned=turned,
    )


def _by_extension(blobs: Sequence[Blob]) -> NDArray[np.int32]:
    """`(B, 6)`: status, width, height, components, orientation, inks; `_OTHER` where it is left to Python."""
    rows = np.full((len(blobs), 6), _OTHER, np.int32)
    check = _function()
    if check is not None and blobs:
        views, addresses, sizes = addresses_of(blobs)
        check(len(views), addresses.ctypes.data, sizes.ctypes.data, rows.ctypes.data)
    return rows


@functools.cache
def _function() -> ctypes._NamedFuncPointer | None:
    try:
        function = load().bv_check
    except NativeUnavailableError:
        return None
    function.restype = None
    function.argtypes = [ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    return function


def _row(header: ImageHeader | Status) -> list[int]:
    if isinstance(header, Status):
        return [header, 0, 0, 0, 1, 0]
    return [
        Status.OK,
        header.width,
        header.height,
        header.components,
        header.orientation,
        header.inverted,
    ]
