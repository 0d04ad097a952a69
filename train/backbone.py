"""timm's Vision Transformer with what DINOv2 and MAE need: mask tokens, visible subsets, batch-subset drop path.

The parameters keep timm's names and shapes, so that an export loads into a plain timm model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from timm.layers.mlp import SwiGLUPacked
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from train.recipe import ModelConfig
from train.rows import put_rows, take_rows

__all__ = [
    "SIZES",
    "Backbone",
    "DropPathRows",
    "Size",
    "TrainBlock",
    "build_backbone",
    "drop_path_rows",
    "interpolate_positions",
    "rows_to_keep",
    "timm_settings",
]


@dataclass(frozen=True, slots=True)
class Size:
    """Width, depth and attention heads of a Vision Transformer."""

    width: int
    depth: int
    heads: int


SIZES = {
    "nano": Size(64, 2, 2),
    "tiny": Size(192, 12, 3),
    "small": Size(384, 12, 6),
    "base": Size(768, 12, 12),
    "large": Size(1024, 24, 16),
    "huge": Size(1280, 32, 16),
}


@dataclass(frozen=True, slots=True)
class DropPathRows:
    """Which rows of a batch take part in each residual branch, and the factor that makes up for the others.

    Attributes:
        rows: `(2 * depth, kept)` int64, for attention and feed-forward of each block in turn.
        scale: Rows in the batch over rows kept.
    """

    rows: Tensor
    scale: float


class TrainBlock(Block):
    """timm's pre-norm block, whose branches may run on some rows of the batch only (DINOv2's stochastic depth)."""

    def forward(  # type: ignore[override]  # attention masks are not ours, rows are
        self, x: Tensor, rows: tuple[Tensor, Tensor] | None = None, scale: float = 1.0
    ) -> Tensor:
        """`(B, N, D)` to `(B, N, D)`; `rows` index the batch for each branch."""
        if rows is None:
            return self._feed_forward(self._attention(x) + x, add=True)
        x, part = take_rows(x, rows[0])
        x = put_rows(x, rows[0], torch.add(part, self._attention(part), alpha=scale).to(x.dtype))
        x, part = take_rows(x, rows[1])
        return put_rows(x, rows[1], torch.add(part, self._feed_forward(part, add=False), alpha=scale).to(x.dtype))

    def _attention(self, x: Tensor) -> Tensor:
        branch: Tensor = self.ls1(self.attn(self.norm1(x)))
        return branch

    def _feed_forward(self, x: Tensor, *, add: bool) -> Tensor:
        branch: Tensor = self.ls2(self.mlp(self.norm2(x)))
        return x + branch if add else branch


class Backbone(VisionTransformer):
    """A timm Vision Transformer with mask token; registers come after CLS and have no position, as in DINOv2.

    Args:
        mask_token: Make the learned token that replaces masked patches.
        reg_tokens: Number of registers.
        settings: timm's own arguments.
    """

    def __init__(self, *, mask_token: bool = False, reg_tokens: int = 0, **settings: Any) -> None:
        super().__init__(block_fn=TrainBlock, num_classes=0, **settings)
        width: int = self.embed_dim
        self.mask_token = nn.Parameter(torch.zeros(1, width)) if mask_token else None
        if reg_tokens:
            self.reg_token = nn.Parameter(torch.empty(1, reg_tokens, width).normal_(std=1e-6))
            self.num_reg_tokens = reg_tokens
            self.num_prefix_tokens = 1 + reg_tokens
        self.checkpoint_activations = False

    @property
    def cls(self) -> nn.Parameter:
        """The CLS token, `(1, 1, D)`."""
        assert self.cls_token is not None
        return self.cls_token

    @property
    def positions(self) -> nn.Parameter:
        """The position embedding, `(1, 1 + patches, D)`, CLS first."""
        assert self.pos_embed is not None
        return self.pos_embed

    def encode(self, images: Tensor, *, masks: Tensor | None = None, drop: DropPathRows | None = None) -> Tensor:
        """All tokens after the final norm.

        Args:
            images: `(B, C, H, W)` float, sides multiples of the patch size.
            masks: `(B, patches)` bool, True where a patch is replaced by the mask token.
            drop: Stochastic depth of this batch.

        Returns:
            `(B, 1 + registers + patches, D)`: CLS, registers, patches in row order.
        """
        side = images.shape[-1] // self.patch_embed.patch_size[0]
        x = self.embed_patches(images)
        if masks is not None:
            assert self.mask_token is not None, "this backbone has no mask token"
            x = torch.where(masks.unsqueeze(-1), self.mask_token.to(x.dtype).unsqueeze(0), x)
        positions = interpolate_positions(self.positions, side=side)
        tokens = [self.cls.expand(len(x), -1, -1) + positions[:, :1]]
        if self.reg_token is not None:
            tokens.append(self.reg_token.expand(len(x), -1, -1))
        return self.run_blocks(torch.cat([*tokens, x + positions[:, 1:]], dim=1), drop=drop)

    def embed_patches(self, images: Tensor) -> Tensor:
        """`(B, C, H, W)` to patch embeddings `(B, patches, D)` without positions."""
        if images.is_cuda:
            return self._embed_by_product(images)
        embedded: Tensor = self.patch_embed.proj(images)
        return embedded.flatten(2).transpose(1, 2)

    def _embed_by_product(self, images: Tensor) -> Tensor:
        """The convolution as a product of matrices: with so few channels a GPU's convolution is far slower."""
        projection = self.patch_embed.proj
        high, wide = projection.kernel_size
        num, channels, height, width = images.shape
        grid = images.view(num, channels, height // high, high, width // wide, wide)
        patches = grid.permute(0, 2, 4, 1, 3, 5).reshape(num, -1, channels * high * wide)
        return functional.linear(patches, projection.weight.flatten(1), projection.bias)

    def run_blocks(self, x: Tensor, *, drop: DropPathRows | None = None) -> Tensor:
        """Blocks and final norm on tokens `(B, N, D)`."""
        for index, block in enumerate(self.blocks):
            arguments = (x,) if drop is None else (x, (drop.rows[2 * index], drop.rows[2 * index + 1]), drop.scale)
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, *arguments, use_reentrant=False)
            else:
                x = block(*arguments)
        normed: Tensor = self.norm(x)
        return normed


def interpolate_positions(positions: Tensor, *, side: int, offset: float = 0.1) -> Tensor:
    """Resize a square position embedding `(1, 1 + n * n, D)` to `(1, 1 + side * side, D)`.

    Bicubic without antialiasing, by the scale factor `(side + offset) / n`: the offset guards against rounding down in
    the reference (dinov2, vision_transformer.py) and shifts the samples a little, so it is part of the numbers.
    """
    num_patches = positions.shape[1] - 1
    if num_patches == side * side:
        return positions
    old = round(num_patches**0.5)
    grid = positions[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    factor = (side + offset) / old
    resized = functional.interpolate(grid, scale_factor=(factor, factor), mode="bicubic", antialias=False)
    assert resized.shape[-2:] == (side, side)
    patches = resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return torch.cat([positions[:, :1], patches], dim=1)


def timm_settings(model: ModelConfig, *, image_size_px: int) -> dict[str, Any]:
    """Timm's arguments for a model, without the layer classes (which JSON cannot hold)."""
    size = SIZES[model.size]
    settings: dict[str, Any] = {
        "img_size": image_size_px,
        "patch_size": model.patch_size,
        "embed_dim": size.width,
        "depth": size.depth,
        "num_heads": size.heads,
        "in_chans": model.in_chans,
        "init_values": model.layer_scale,
    }
    if model.ffn == "swiglu":
        settings["mlp_ratio"] = _swiglu_ratio(size.width)
    return settings


def _swiglu_ratio(width: int) -> float:
    """Packed width over width: two thirds of 4 x width, rounded up to a multiple of 8, twice (DINOv2's SwiGLU)."""
    hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
    ratio = 2 * hidden / width
    return ratio if int(width * ratio) == 2 * hidden else ratio + 1e-9


def build_backbone(model: ModelConfig, *, image_size_px: int, mask_token: bool = False) -> Backbone:
    """The Vision Transformer of a recipe, initialised as DINOv2 does it (truncated normal 0.02)."""
    settings = timm_settings(model, image_size_px=image_size_px)
    if model.ffn == "swiglu":
        settings |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    return Backbone(mask_token=mask_token, reg_tokens=model.registers, **settings)


def rows_to_keep(draws: NDArray[np.floating[Any]], *, unit_images: int, rate: float) -> NDArray[np.int64]:
    """Rows of a batch that take part in each residual branch, from uniform numbers; on the host.

    Args:
        draws: `(units, 2 * depth, crops * unit_images)` uniform numbers; the smallest of each unit are kept. Rows
            are crop-major.
        unit_images: Images a unit.
        rate: Share of rows to leave out.

    Returns:
        `(2 * depth, units * kept)`.
    """
    units, branches, rows = draws.shape
    kept = max(int(rows * (1 - rate)), 1)
    chosen = draws.argsort(axis=-1, kind="stable")[..., :kept]
    crop, image = chosen // unit_images, chosen % unit_images
    unit = np.arange(units).reshape(-1, 1, 1)
    flat = crop * (units * unit_images) + unit * unit_images + image
    return np.ascontiguousarray(flat.swapaxes(0, 1).reshape(branches, -1))


def drop_path_rows(
    draws: NDArray[np.floating[Any]], *, unit_images: int, rate: float, device: torch.device
) -> DropPathRows:
    """`rows_to_keep` on a device, with the factor that makes up for the rows left out."""
    rows = rows_to_keep(draws, unit_images=unit_images, rate=rate)
    kept = rows.shape[1] // len(draws)
    return DropPathRows(rows=torch.from_numpy(rows).to(device), scale=draws.shape[2] / kept)
