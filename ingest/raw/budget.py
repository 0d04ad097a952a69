"""The budget of decoded bytes: what one raw file may need in memory at a time, asked for before it is allocated."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ingest.raw.items import RejectError
from ingest.settings import LimitSettings

__all__ = ["claim", "claim_array"]


def claim(num_bytes: float, limits: LimitSettings, what: str) -> None:
    """Check that so many bytes are within the budget.

    Args:
        num_bytes: What is about to be allocated, with the copies that are made of it.
        limits: The budget.
        what: What it is for, in our own words.

    Raises:
        RejectError: They are more than `decoded_bytes`; reason `over_budget`.
    """
    if num_bytes > limits.decoded_bytes:
        raise RejectError("over_budget", f"{what}: {num_bytes:.0f} bytes, more than {limits.decoded_bytes}")


def claim_array(
    shape: Iterable[int], dtype: np.dtype[np.generic] | int, limits: LimitSettings, what: str, *, copies: float = 1
) -> None:
    """Check that an array, and copies of it, are within the budget.

    Args:
        shape: Its axes.
        dtype: Its values, or the bytes of one.
        limits: The budget.
        what: What it is for, in our own words.
        copies: How many arrays of its size are held at a time.

    Raises:
        RejectError: They are not; reason `over_budget`.
    """
    size = float(np.prod([float(axis) for axis in shape]))
    claim(size * (dtype if isinstance(dtype, int) else dtype.itemsize) * copies, limits, what)
