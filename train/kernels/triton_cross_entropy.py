"""Cross-entropy over prototypes: the logits are read twice, their gradient is written once, nothing else is as large.

The forward pass goes over a row once, with the running maximum of Milakov and Gimelshein 2018 (arXiv 1805.02867).
"""

from __future__ import annotations

from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor

from train.kernels.launching import on_device_of

__all__ = ["backward", "forward"]

_BLOCK: Final = 4096
"""Prototypes at a time."""
_WARPS: Final = 8


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _forward(  # noqa: PLR0917 - a launch gives constants by position
    logits: tl.tensor,
    targets: tl.tensor,
    losses: tl.tensor,
    log_sums: tl.tensor,
    masses: tl.tensor,
    temperature: tl.tensor,
    num_targets: tl.tensor,
    prototypes: tl.tensor,
    block: tl.constexpr,
) -> None:
    """One row: its loss, the logarithm of its sum of exponentials, the mass of its targets."""
    row = tl.program_id(0).to(tl.int64)
    from_logits, from_targets = logits + row * prototypes, targets + row % num_targets * prototypes
    largest = tl.full([], -float("inf"), tl.float32)
    total, product, mass = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
    for start in range(0, prototypes, block):
        at = start + tl.arange(0, block)
        inside = at < prototypes
        known = tl.load(from_logits + at, mask=inside, other=0.0).to(tl.float32) / temperature
        scaled = tl.where(inside, known, -float("inf"))
        target = tl.load(from_targets + at, mask=inside, other=0.0)
        new = tl.maximum(largest, tl.max(scaled, axis=0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(scaled - new), axis=0)
        product += tl.sum(target * known, axis=0)
        mass += tl.sum(target, axis=0)
        largest = new
    log_sum = largest + tl.log(total)
    tl.store(losses + row, mass * log_sum - product)
    tl.store(log_sums + row, log_sum)
    tl.store(masses + row, mass)


@triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
def _backward(  # noqa: PLR0917 - a launch gives constants by position
    logits: tl.tensor,
    targets: tl.tensor,
    log_sums: tl.tensor,
    masses: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    temperature: tl.tensor,
    num_targets: tl.tensor,
    prototypes: tl.tensor,
    block: tl.constexpr,
) -> None:
    """One block of one row of the gradient."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    inside = at < prototypes
    scaled = tl.load(logits + row * prototypes + at, mask=inside, other=0.0).to(tl.float32) / temperature
    target = tl.load(targets + row % num_targets * prototypes + at, mask=inside, other=0.0)
    softmax = tl.exp(scaled - tl.load(log_sums + row))
    made = (softmax * tl.load(masses + row) - target) * tl.load(scale + row)
    tl.store(out + row * prototypes + at, made.to(out.dtype.element_ty), mask=inside)


def forward(logits: Tensor, probabilities: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, logarithms of the sums of exponentials and masses of the targets, `(rows,)` float32 each.

    Args:
        logits: `(rows, K)`.
        probabilities: `(n, K)` float32; row `r` meets row `r % n`.
        temperature: Divides the logits.
    """
    logits, probabilities = logits.contiguous(), probabilities.contiguous()
    losses, log_sums, masses = torch.empty((3, len(logits)), dtype=torch.float32, device=logits.device)
    if len(logits):
        sizes = (temperature, *probabilities.shape, _BLOCK)
        with on_device_of(logits):
            _forward[(len(logits),)](logits, probabilities, losses, log_sums, masses, *sizes, num_warps=_WARPS)
    return losses, log_sums, masses


def backward(  # noqa: PLR0917 - as autograd keeps them
    logits: Tensor, probabilities: Tensor, log_sums: Tensor, masses: Tensor, scale: Tensor, temperature: float
) -> Tensor:
    """The gradient of the logits, in their type.

    Args:
        logits: Of the forward pass, as are the next three.
        probabilities: Likewise.
        log_sums: Likewise.
        masses: Likewise.
        scale: `(rows,)` float32, the gradient of the losses over the temperature.
        temperature: Divides the logits.
    """
    logits, probabilities = logits.contiguous(), probabilities.contiguous()
    out = torch.empty_like(logits)
    if len(logits):
        grid = (len(logits), triton.cdiv(logits.shape[1], _BLOCK))
        sizes = (temperature, *probabilities.shape, _BLOCK)
        with on_device_of(logits):
            _backward[grid](logits, probabilities, log_sums, masses, scale.contiguous(), out, *sizes, num_warps=_WARPS)
    return out
