"""`torch.compile` by parts: blocks, heads and losses, each small and used many times, so that compiling takes seconds.

A part is compiled for itself since FSDP, activation checkpointing and stochastic depth work between the parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import torch
from torch import nn

from train.backbone import TrainBlock
from train.objectives.heads import PrototypeHead
from train.recipe import RunConfig

__all__ = ["Compiled", "compile_parts", "wants_compile"]

BACKEND: Final = "inductor"
_PARTS: Final = (TrainBlock, PrototypeHead)
_Function = TypeVar("_Function", bound=Callable[..., object])


def wants_compile(run: RunConfig, device: torch.device) -> bool:
    """Whether a run compiles on a device: as the recipe says, and with `auto` on CUDA."""
    return device.type == "cuda" if run.compile == "auto" else run.compile


def compile_parts(module: nn.Module) -> None:
    """Compile the blocks and heads in a module, in place."""
    for part in module.modules():
        if isinstance(part, _PARTS):
            part.compile(backend=BACKEND)


class Compiled:
    """Functions in their compiled form, once this is switched on.

    Attributes:
        active: Whether functions are compiled; else they are called as they are.
    """

    def __init__(self) -> None:
        self.active = False
        self._made: dict[Callable[..., object], Callable[..., object]] = {}

    def __call__(self, function: _Function) -> _Function:
        """The function to call; sizes may change from call to call (masked patches do) without compiling again."""
        if not self.active:
            return function
        if function not in self._made:
            self._made[function] = torch.compile(function, dynamic=True, backend=BACKEND)
        return self._made[function]  # type: ignore[return-value]  # it has the function's signature
