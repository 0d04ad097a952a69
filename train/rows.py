"""Take rows of a batch out and put changed ones in their place, with a backward pass that copies the batch once.

`index_select` and `index_copy` alone would fill, add and copy a gradient of the batch's size four times: the gradient
of rows that were replaced is zero, and that of rows that were taken is added to it. Here the first is left as it is,
since the second overwrites it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["put_rows", "take_rows"]


def take_rows(batch: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The batch, and some of its rows; the batch returned is for `put_rows` with the same rows, and for nothing else.

    Args:
        batch: `(B, ...)`.
        rows: `(n,)` int64, each at most once.
    """
    taken: tuple[Tensor, Tensor] = _Take.apply(batch, rows)
    return taken


def put_rows(batch: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """The batch with some rows replaced.

    Args:
        batch: `(B, ...)`, as `take_rows` gave it.
        rows: The same as there.
        values: `(n, ...)`, of the batch's type; made of the rows that were taken.
    """
    changed: Tensor = _Put.apply(batch, rows, values)
    return changed


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, batch: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows)
        return batch.view_as(batch), batch.index_select(0, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_batch: Tensor, of_rows: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return of_batch.index_copy(0, rows, of_rows), None


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, batch: Tensor, rows: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return batch.index_copy(0, rows, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        (rows,) = ctx.saved_tensors
        return gradient, None, gradient.index_select(0, rows)  # `take_rows` overwrites the rows of the first
