"""From the teacher's logits to its targets: an EMA centre (DINO) or Sinkhorn-Knopp (SwAV, Caron et al. 2020).

Both see the rows of all ranks, so targets do not depend on how a batch is spread.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from shards.decode.kernels.choice import KernelName

__all__ = ["EmaCenter", "Sinkhorn", "Targets", "sum_over_ranks"]


class Targets(Protocol):
    """Turns teacher logits `(rows, K)`, float32 or bfloat16, into target probabilities `(rows, K)` float32."""

    temperature: float

    def __call__(self, logits: Tensor, *, by: KernelName = "torch") -> Tensor:
        """The targets; to be called once a micro-batch, with all rows of this rank.

        Args:
            logits: Of the teacher.
            by: What computes them, where there is a choice.
        """
        ...

    def move(self) -> None:
        """End of a step: what is remembered from batch to batch moves on."""
        ...


def sum_over_ranks(value: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, in place; the tensor itself where there is one process."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(value)
    return value


class EmaCenter(nn.Module):
    """Softmax of centred logits; the centre is an exponential mean of past logits.

    A batch is never centred by itself: the centre moves at the end of the step (`move`), by the mean over all
    micro-batches and ranks.

    Args:
        num_prototypes: K.
        momentum: Share of the old centre that stays.
    """

    center: Tensor
    seen: Tensor

    def __init__(self, num_prototypes: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        self.register_buffer("seen", torch.zeros(1 + num_prototypes), persistent=False)
        self.momentum = momentum
        self.temperature = 1.0

    @torch.no_grad()
    def forward(self, logits: Tensor, *, by: KernelName = "torch") -> Tensor:
        """Softmax of `(logits - centre) / temperature`; the logits are kept in mind for the next centre."""
        self.seen[0] += len(logits)
        self.seen[1:] += logits.sum(0, dtype=torch.float32)
        if by == "triton":
            from train.kernels.triton_softmax import centred_softmax

            return centred_softmax(logits, self.center[0], self.temperature)
        return torch.softmax((logits.float() - self.center).div_(self.temperature), dim=-1)

    @torch.no_grad()
    def move(self) -> None:
        """Take the mean of all logits since the last move into the centre; nothing where there were none."""
        totals = sum_over_ranks(self.seen)
        usable = (totals[0] > 0) & totals.isfinite().all()  # else one bad batch would stay in the centre for ever
        mean = torch.where(usable, totals[1:] / totals[0].clamp_min(1), self.center[0])
        self.center.mul_(self.momentum).add_(mean, alpha=1 - self.momentum)
        self.seen.zero_()


class Sinkhorn(nn.Module):
    """Sinkhorn-Knopp: rows keep probability 1, prototypes are used equally often over the batch of all ranks.

    Args:
        iterations: Rounds of normalisation.
    """

    def __init__(self, *, iterations: int = 3) -> None:
        super().__init__()
        self.iterations = iterations
        self.temperature = 1.0

    @torch.no_grad()
    def forward(self, logits: Tensor, *, by: KernelName = "torch") -> Tensor:
        """`(rows, K)` logits to targets; the largest logit of the batch is taken off first, which cancels out."""
        del by  # torch's operations in every case
        logits = logits.float()
        num_rows = sum_over_ranks(logits.new_full((1,), float(len(logits))))
        scores = torch.exp((logits - self._largest(logits)) / self.temperature)
        scores /= sum_over_ranks(scores.sum()).clamp_min(1e-38)
        for _ in range(self.iterations):
            scores /= sum_over_ranks(scores.sum(0)).clamp_min(1e-38) * logits.shape[1]
            scores /= scores.sum(1, keepdim=True).clamp_min(1e-38) * num_rows
        return scores * num_rows

    def move(self) -> None:
        """Nothing is remembered."""

    def _largest(self, logits: Tensor) -> Tensor:
        largest = logits.max() if len(logits) else logits.new_full((), float("-inf"))
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return largest
