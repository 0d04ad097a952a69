"""What two pictures are compared by: a hash of their decoded pixels."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def pixel_sha256(picture: NDArray[np.uint8]) -> str:
    """SHA-256 (hex) of `HxWxC`, a zero byte, and the pixels in row order.

    Args:
        picture: `(H, W)` or `(H, W, C)` uint8.
    """
    height, width = picture.shape[:2]
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    digest = hashlib.sha256(f"{height}x{width}x{channels}\0".encode())
    digest.update(np.ascontiguousarray(picture).data)
    return digest.hexdigest()
