"""Rows that are taken out of a batch and put back: values and gradients of plain indexing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from train.rows import put_rows, take_rows

pytestmark = pytest.mark.torch


def plain(batch: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    part = batch.index_select(0, rows)
    return batch.index_copy(0, rows, part + torch.tanh(part @ weight))


def by_rows(batch: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    batch, part = take_rows(batch, rows)
    return put_rows(batch, rows, part + torch.tanh(part @ weight))


@pytest.mark.parametrize("num", [0, 1, 4, 6])
def test_values_and_gradients_are_those_of_plain_indexing(num: int) -> None:
    generator = torch.Generator().manual_seed(num)
    batch = torch.randn(6, 3, 5, generator=generator, requires_grad=True)
    weight = torch.randn(5, 5, generator=generator, requires_grad=True)
    first, second = (torch.randperm(6, generator=generator)[:num] for _ in range(2))
    made = []
    for function in (plain, by_rows):
        out = function(function(batch, first, weight), second, weight)
        made.append((out, *torch.autograd.grad(out.square().sum(), [batch, weight])))
    for want, got in zip(*made, strict=True):
        assert torch.equal(got, want)


def test_the_gradient_is_that_of_finite_differences() -> None:
    batch = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: by_rows(x, torch.tensor([2, 0]), w), (batch, weight))
