"""KoLeo: features spread over the sphere by pushing nearest neighbours apart.

Sablayrolles et al. 2018 (arXiv 1806.03198): minus the mean log distance to the nearest neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["koleo_loss"]


def koleo_loss(features: Tensor, *, eps: float = 1e-8) -> Tensor:
    """KoLeo of `(B, D)` or of groups `(G, B, D)`, the mean over groups.

    Always in float32, whatever the autocast: half precision rounds `eps` to zero, and two equal rows then give
    infinity. Repeated rows are finite here: `-log(2 eps)`.
    """
    with torch.autocast(features.device.type, enabled=False):
        x = functional.normalize(features.float(), eps=eps, p=2, dim=-1)
        with torch.no_grad():
            similarity = x @ x.transpose(-1, -2)
            similarity.diagonal(dim1=-2, dim2=-1).fill_(-2.0)
            nearest = similarity.argmax(-1)
        neighbours = torch.gather(x, -2, nearest.unsqueeze(-1).expand_as(x))
        distances = functional.pairwise_distance(x, neighbours, p=2, eps=eps)
        return -torch.log(distances + eps).mean()
