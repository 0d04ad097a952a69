"""Where a kernel is launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["on_device_of"]


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """For a launch: the GPU that holds a tensor is the current one; nothing in Triton's interpreter."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
