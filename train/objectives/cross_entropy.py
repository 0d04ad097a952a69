"""Cross-entropy between the teacher's assignment to prototypes and the student's, without tensors of the logits' size.

With 65,536 prototypes the logits are the largest tensor of a step, and the formula in torch's operations writes several
more of their size. Here the forward pass keeps a few numbers a row, and the backward pass computes the softmax again
from the logits and writes the gradient alone: by a Triton kernel, or in torch on so many rows at a time that what is
between stays small. Few logits, and those under `torch.compile`, which fuses it, take the plain formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from shards.decode.kernels.choice import KernelName

__all__ = ["cross_entropy", "plain_cross_entropy"]

_CHUNK_VALUES: Final = 1 << 22
"""Logits that torch takes at a time, 16 MiB in float32."""


def cross_entropy(logits: Tensor, probabilities: Tensor, *, temperature: float, by: KernelName = "torch") -> Tensor:
    """`-sum(p * log softmax(logits / temperature))` a row, in float32.

    Args:
        logits: `(rows, K)` of the student; they alone get a gradient.
        probabilities: `(n, K)` float32 of the teacher, `n` a divisor of `rows`: row `r` meets row `r % n`.
        temperature: The student's.
        by: What computes it.

    Returns:
        `(rows,)`.
    """
    if by == "torch" and (torch.compiler.is_compiling() or logits.numel() <= _CHUNK_VALUES):
        return plain_cross_entropy(logits, probabilities, temperature=temperature)
    losses: Tensor = _CrossEntropy.apply(logits, probabilities, temperature, by)
    return losses


def plain_cross_entropy(logits: Tensor, probabilities: Tensor, *, temperature: float) -> Tensor:
    """The same by its formula."""
    groups = logits.float().view(-1, *probabilities.shape) if len(probabilities) else logits.float()
    return -(probabilities * functional.log_softmax(groups / temperature, dim=-1)).sum(-1).flatten()


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, probabilities: Tensor, temperature: float, by: KernelName) -> Tensor:
        ctx.temperature, ctx.by = temperature, by
        if by == "triton":
            from train.kernels.triton_cross_entropy import forward

            losses, log_sums, masses = forward(logits, probabilities, temperature)
            ctx.save_for_backward(logits, probabilities, log_sums, masses)
            return losses
        losses = logits.new_empty(len(logits), dtype=torch.float32)
        for rows, these in _chunks(logits, probabilities):
            losses[rows] = plain_cross_entropy(logits[rows], these, temperature=temperature)
        ctx.save_for_backward(logits, probabilities)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, probabilities, *sums = ctx.saved_tensors
        scale = gradient / ctx.temperature
        if ctx.by == "triton":
            from train.kernels.triton_cross_entropy import backward

            log_sums, masses = sums
            return backward(logits, probabilities, log_sums, masses, scale, ctx.temperature), None, None, None
        made = torch.empty_like(logits)
        for rows, these in _chunks(logits, probabilities):
            softmax = torch.softmax(logits[rows].float() / ctx.temperature, dim=-1)
            made[rows] = softmax.mul_(these.sum(-1, keepdim=True)).sub_(these).mul_(scale[rows, None])
        return made, None, None, None


def _chunks(logits: Tensor, probabilities: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Runs of rows, each with its rows of the targets."""
    num = len(probabilities)
    step = max(_CHUNK_VALUES // logits.shape[1], 1)
    for first in range(0, len(logits), num or 1):
        for start in range(first, first + num, step):
            stop = min(start + step, first + num)
            yield slice(start, stop), probabilities[start - first : stop - first]
