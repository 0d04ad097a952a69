"""A copy of a frozen network whose matrices are bfloat16, for its forward pass under autocast.

Autocast casts float32 weights at each use and caches the casts of trainable ones only, so a teacher's are cast anew in
every forward pass. The numbers are those of autocast: only what it casts is stored cast, all else is shared.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

__all__ = ["Bf16Copy"]

_CAST = (nn.Linear, nn.Conv2d)


class Bf16Copy:
    """The copy, brought up to date when it is asked for.

    Args:
        network: Frozen; its weights may change in place at any time.
    """

    def __init__(self, network: nn.Module) -> None:
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        self._copy = copy.deepcopy(network, shared)
        self._exact: list[torch.Tensor] = []
        self._cast: list[torch.Tensor] = []
        self._versions: list[int] = []
        for module in self._copy.modules():
            if isinstance(module, _CAST):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    setattr(module, name, self._cast_of(parameter))

    def _cast_of(self, parameter: nn.Parameter) -> nn.Parameter:
        cast = nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
        self._exact.append(parameter)
        self._cast.append(cast)
        return cast

    @torch.no_grad()
    def current(self) -> nn.Module:
        """The copy with the weights that the network has now."""
        versions = [parameter._version for parameter in self._exact]  # noqa: SLF001 - rises with every change in place
        if versions != self._versions:
            torch._foreach_copy_(self._cast, self._exact)
            self._versions = versions
        return self._copy
