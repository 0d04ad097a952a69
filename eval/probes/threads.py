"""Fewer threads for small work: waking a second thread costs more than a product of a few thousand numbers.

On a busy machine it costs far more: 135 passes over 546 × 384 features took 5 s with two threads and 0.07 s with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from threadpoolctl import threadpool_limits

_SMALL_PRODUCT: Final = 50_000_000


@contextmanager
def fitting_threads(multiplications: float) -> Iterator[None]:
    """One BLAS thread for numpy and scipy; one torch thread too where a pass multiplies but little.

    Args:
        multiplications: Of one pass.
    """
    before = torch.get_num_threads()
    if multiplications < _SMALL_PRODUCT:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
