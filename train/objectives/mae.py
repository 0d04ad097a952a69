"""Masked autoencoding: what is seen, and the error on what is not (He et al. 2021, arXiv 2111.06377)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Masking",
    "mae_loss",
    "mask_by_noise",
    "normalize_patches",
    "patchify",
    "rank_noise",
    "sincos_positions",
    "unpatchify",
]


@dataclass(frozen=True, slots=True)
class Masking:
    """Which patches stay.

    Attributes:
        removed: `(B, L)` bool, True where a patch is hidden.
        restore: `(B, L)` int64, the place of each patch in the order (kept, removed).
        kept: `(B, int(L * (1 - ratio)))` int64, the patches that are seen, in the order of their noise.
    """

    removed: Tensor
    restore: Tensor
    kept: Tensor

    def first(self, num: int) -> Masking:
        """Of the first `num` images."""
        return Masking(self.removed[:num], self.restore[:num], self.kept[:num])


def rank_noise(noise: NDArray[np.floating[Any]], *, ratio: float) -> dict[str, NDArray[Any]]:
    """Keep the patches with the smallest noise `(B, L)`, each image for itself: the arrays of a `Masking`."""
    num_kept = int(noise.shape[1] * (1 - ratio))
    order = noise.argsort(axis=1, kind="stable")
    restore = np.empty_like(order)
    np.put_along_axis(restore, order, np.arange(noise.shape[1])[None], axis=1)
    return {"removed": restore >= num_kept, "restore": restore, "kept": np.ascontiguousarray(order[:, :num_kept])}


def mask_by_noise(noise: Tensor, *, ratio: float) -> Masking:
    """`rank_noise` of a tensor on the host."""
    return Masking(**{name: torch.from_numpy(array) for name, array in rank_noise(noise.numpy(), ratio=ratio).items()})


def patchify(images: Tensor, patch: int) -> Tensor:
    """`(B, C, H, W)` to `(B, L, patch * patch * C)`: patches by row, inside a patch row, column, channel."""
    batch, channels, height, width = images.shape
    x = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, patch: int) -> Tensor:
    """The inverse of `patchify`, for square images."""
    batch, length, dim = patches.shape
    side = round(length**0.5)
    x = patches.reshape(batch, side, side, patch, patch, dim // patch**2)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, side * patch, side * patch)


def normalize_patches(patches: Tensor) -> Tensor:
    """Each patch `(B, L, P)` less its mean, over its unbiased deviation (variance + 1e-6), in float32."""
    patches = patches.float()
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def mae_loss(predictions: Tensor, targets: Tensor, removed: Tensor) -> Tensor:
    """Mean squared error over the removed patches of the whole batch, in float32.

    Args:
        predictions: `(B, L, P)`.
        targets: `(B, L, P)` pixels or `normalize_patches`.
        removed: `(B, L)` bool or 0/1, True for the patches that count.
    """
    error = (predictions.float() - targets).square().mean(-1)
    weight = removed.to(error.dtype)
    return (error * weight).sum() / weight.sum()


def sincos_positions(width: int, side: int) -> Tensor:
    """Fixed 2-D sine-cosine positions, `(1 + side * side, width)` float32, a zero row for CLS first.

    The first half of the channels holds the column, the second the row; each half is [sin | cos] with frequencies
    `10000 ** (-i / (width / 4))`.
    """
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    place = torch.arange(side, dtype=torch.float64)
    angle = place[:, None] * frequency
    axis = torch.cat([angle.sin(), angle.cos()], dim=1)
    column = axis.repeat(side, 1)
    row = axis.repeat_interleave(side, dim=0)
    return torch.cat([torch.zeros(1, width), torch.cat([column, row], dim=1).float()])
