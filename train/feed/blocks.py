"""Several arrays in one block of bytes, so that one copy brings them all to the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["block_bytes", "pack", "unpack"]

ALIGN = 64
"""Bytes; every array starts at a multiple, so that a tensor of any type may lie there."""


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // ALIGN) * ALIGN


def block_bytes(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Bytes that the arrays take in a block."""
    return sum(_padded(array.nbytes) for array in arrays.values())


def pack(arrays: Mapping[str, NDArray[Any]], block: NDArray[np.uint8]) -> None:
    """Write the arrays one behind the other.

    Args:
        arrays: Of numbers or truth values.
        block: `(n,)` with `n >= block_bytes(arrays)`.
    """
    at = 0
    for array in arrays.values():
        block[at : at + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        at += _padded(array.nbytes)


def unpack(like: Mapping[str, NDArray[Any]], block: Tensor) -> dict[str, Tensor]:
    """The arrays as tensors over a copy of the block.

    Args:
        like: The arrays that were packed; their shapes and types alone are looked at.
        block: `(n,)` uint8.
    """
    tensors, at = {}, 0
    for name, array in like.items():
        dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
        tensors[name] = block[at : at + array.nbytes].view(dtype).view(array.shape)
        at += _padded(array.nbytes)
    return tensors
