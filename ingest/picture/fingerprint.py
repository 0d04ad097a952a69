"""What tells copies: a hash of the pixels, a perceptual hash that survives re-encoding, and a small gray thumbnail.

The perceptual hash is a 256-bit DCT hash (after Zauner 2010, "Implementation and benchmarking of perceptual image
hash functions") with two changes that real medical images ask for. The picture is first brought to one canonical
size, so that copies of other sizes agree. And a bit is set only where its coefficient is clearly above the median (a
dead zone): in left-right symmetric pictures half of the coefficients are zero, and their signs are noise. Cost: about
a tenth of the decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingest.picture.normalise import to_gray
from ingest.readers.pillow import Picture
from shards.decode.opencv import mean_blocks, require_opencv, scale_linear
from shards.pixels import reduce as native

CANONICAL_PX: Final = 256
SIDE: Final = 16
DEAD_ZONE: Final = 0.02
THUMB_PX: Final = 64
_MIDDLE: Final = (SIDE * SIDE // 2 - 1, SIDE * SIDE // 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prints:
    """Perceptual fingerprints of one picture.

    Attributes:
        whole: 32 bytes, the hash of the whole picture.
        centre: 32 bytes, the hash of its centre square (evaluation sets cut it out).
        thumb: `(64, 64)` uint8, the whole picture squashed to a gray square.
    """

    whole: bytes
    centre: bytes
    thumb: NDArray[np.uint8]


def fingerprint(picture: Picture) -> Prints:
    """Hashes and thumbnail of a picture, colour or gray, of any size."""
    gray = to_gray(picture)
    height, width = gray.shape
    small = _small(gray)
    whole = perceptual_hash(small)
    side = min(height, width)
    centre = whole
    if height != width:
        top, left = (height - side) // 2, (width - side) // 2
        centre = perceptual_hash(_small(gray[top : top + side, left : left + side]))
    return Prints(whole=whole, centre=centre, thumb=small)


def perceptual_hash(small: NDArray[np.uint8]) -> bytes:
    """The 256-bit hash of a `(64, 64)` uint8 picture: row-major bits of the 16 × 16 lowest frequencies."""
    basis = _dct_basis()
    coefficients = (basis @ small.astype(np.float32) @ basis.T).ravel()
    coefficients[0] = 0
    middle = np.partition(coefficients, _MIDDLE)[list(_MIDDLE)]
    threshold = (middle[0] + middle[1]) / 2 + DEAD_ZONE * np.abs(coefficients).mean()
    return np.packbits(coefficients > threshold).tobytes()


@cache
def _dct_basis() -> NDArray[np.float32]:
    """`(16, 64)`: the lowest rows of the orthonormal DCT-II."""
    k, n = np.arange(SIDE)[:, None], np.arange(THUMB_PX)[None, :]
    basis = np.cos(np.pi * (2 * n + 1) * k / (2 * THUMB_PX)) * np.sqrt(2 / THUMB_PX)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, dtype=np.float32)


def _small(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The thumbnail, by way of the canonical size, so that copies of other sizes agree."""
    return _to_square(_to_square(gray, CANONICAL_PX), THUMB_PX)


def _to_square(gray: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """By `native.area` only where that is OpenCV's result: hashes and thumbnails must not depend on who made them."""
    height, width = gray.shape
    reduces = min(height, width) >= side
    if not reduces:
        return scale_linear(gray, (side, side))
    if not height % side and not width % side:
        return mean_blocks(gray, (side, side))
    if native.available():
        return native.area(gray, (side, side))
    cv2 = require_opencv("fingerprinting without the compiled decoder")
    return np.asarray(cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)
