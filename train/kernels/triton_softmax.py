"""The teacher's softmax over prototypes: its logits are read twice, as they are, and the probabilities written once."""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from train.kernels.launching import on_device_of

__all__ = ["centred_softmax"]

_BLOCK: Final = 4096
"""Prototypes at a time."""
_WARPS: Final = 8


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _softmax(  # noqa: PLR0917 - a launch gives constants by position
    logits: tl.tensor,
    center: tl.tensor,
    out: tl.tensor,
    temperature: tl.tensor,
    prototypes: tl.tensor,
    block: tl.constexpr,
) -> None:
    """One row, with the running maximum of Milakov and Gimelshein 2018 (arXiv 1805.02867)."""
    first = tl.program_id(0).to(tl.int64) * prototypes
    largest, total = tl.full([], -float("inf"), tl.float32), tl.full([], 0.0, tl.float32)
    for start in range(0, prototypes, block):
        at = start + tl.arange(0, block)
        inside = at < prototypes
        value = tl.load(logits + first + at, mask=inside, other=0.0).to(tl.float32)
        value = (value - tl.load(center + at, mask=inside, other=0.0)) / temperature
        value = tl.where(inside, value, -float("inf"))
        new = tl.maximum(largest, tl.max(value, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(value - new), axis=0)
        largest = new
    for start in range(0, prototypes, block):
        at = start + tl.arange(0, block)
        inside = at < prototypes
        value = tl.load(logits + first + at, mask=inside, other=0.0).to(tl.float32)
        value = (value - tl.load(center + at, mask=inside, other=0.0)) / temperature
        tl.store(out + first + at, tl.exp(value - largest) / total, mask=inside)


def centred_softmax(logits: Tensor, center: Tensor, temperature: float) -> Tensor:
    """Softmax of `(logits - center) / temperature`, `(rows, K)` float32.

    Args:
        logits: `(rows, K)`, float32 or bfloat16.
        center: `(K,)` float32.
        temperature: Divides.
    """
    logits, center = logits.contiguous(), center.contiguous()
    out = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    if len(logits):
        with on_device_of(logits):
            _softmax[(len(logits),)](logits, center, out, temperature, logits.shape[1], _BLOCK, num_warps=_WARPS)
    return out
