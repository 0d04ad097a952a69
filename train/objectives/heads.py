"""The projection head of DINO and iBOT."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from train.recipe import HeadConfig

__all__ = ["PrototypeHead"]


class _WeightNormLinear(nn.Module):
    """A bias-free linear layer whose rows are `g * v / |v|`, with `g` trainable from 1 on (as in DINOv2)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_features, 1))
        self.weight_v = nn.Parameter(nn.Linear(in_features, out_features, bias=False).weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))
        return functional.linear(x, weight)


class PrototypeHead(nn.Module):
    """MLP with GELU, L2 normalisation, weight-normed linear layer onto the prototypes.

    Args:
        width: Of the tokens that come in.
        config: Layer sizes.
    """

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        sizes = [width] + [config.hidden] * (config.layers - 1) + [config.bottleneck]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            linear = nn.Linear(before, after)
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.last_layer = _WeightNormLinear(config.bottleneck, config.prototypes)

    def forward(self, x: Tensor) -> Tensor:
        """`(rows, width)` to logits `(rows, K)`."""
        x = self.mlp(x)
        eps = 1e-6 if x.dtype == torch.float16 else 1e-12
        logits: Tensor = self.last_layer(functional.normalize(x, dim=-1, p=2, eps=eps))
        return logits
