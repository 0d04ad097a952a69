"""Masked autoencoder: encode the visible quarter, decode all, compare the hidden pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from train.augment import augment
from train.backbone import Backbone, TrainBlock, build_backbone
from train.methods.base import Method, StepLosses
from train.objectives.mae import (
    Masking,
    mae_loss,
    normalize_patches,
    patchify,
    rank_noise,
    sincos_positions,
    unpatchify,
)
from train.optim import Multipliers, decay_matrices_only
from train.randomness import Purpose, Share, to_device
from train.recipe import MaeConfig, Recipe
from train.schedules import StepValues
from train.start import load_start_weights

__all__ = ["Mae", "MaeDecoder", "MaeNetwork"]

NUM_PICTURES = 8


class MaeDecoder(nn.Module):
    """A narrow Vision Transformer from visible tokens to the pixels of all patches.

    Args:
        width_in: Of the encoder.
        side: Patches a side.
        patch_values: Numbers a patch.
        config: Width, depth and heads.
    """

    positions: Tensor

    def __init__(self, width_in: int, *, side: int, patch_values: int, config: MaeConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.embed = nn.Linear(width_in, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList(
            TrainBlock(width, config.decoder_heads, qkv_bias=True) for _ in range(config.decoder_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pred = nn.Linear(width, patch_values)
        self.register_buffer("positions", sincos_positions(width, side).unsqueeze(0), persistent=False)

    def forward(self, tokens: Tensor, restore: Tensor) -> Tensor:
        """`(B, 1 + kept, D)` encoder tokens, CLS first, to `(B, L, P)` pixels of all patches."""
        x = self.embed(tokens)
        num_hidden = restore.shape[1] + 1 - x.shape[1]
        hidden = self.mask_token.to(x.dtype).expand(len(x), num_hidden, -1)
        patches = torch.cat([x[:, 1:], hidden], dim=1)
        patches = torch.gather(patches, 1, restore.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        x = torch.cat([x[:, :1], patches], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        pixels: Tensor = self.pred(self.norm(x)[:, 1:])
        return pixels


class MaeNetwork(nn.Module):
    """Encoder and decoder.

    Args:
        encoder: The backbone; its position embedding is set to fixed sine-cosine values.
        config: The decoder's sizes.
    """

    def __init__(self, encoder: Backbone, config: MaeConfig) -> None:
        super().__init__()
        side = encoder.patch_embed.grid_size[0]
        weight = encoder.patch_embed.proj.weight
        self.encoder = encoder
        self.decoder = MaeDecoder(encoder.embed_dim, side=side, patch_values=weight[0].numel(), config=config)
        self._initialize(side)

    def forward(self, patches: Tensor, kept: Tensor, restore: Tensor) -> Tensor:
        """Predict all patches from those kept.

        Args:
            patches: `(B, L, P)` normalised pixels from `patchify`.
            kept: `(B, k)` int64.
            restore: `(B, L)` int64.

        Returns:
            `(B, L, P)`.
        """
        decoded: Tensor = self.decoder(self.encode_visible(patches, kept), restore)
        return decoded

    def encode_visible(self, patches: Tensor, kept: Tensor) -> Tensor:
        """`(B, 1 + k, D)` tokens; only the kept patches are embedded at all."""
        encoder = self.encoder
        visible = torch.gather(patches, 1, kept.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
        weight = encoder.patch_embed.proj.weight.permute(0, 2, 3, 1).flatten(1)
        x = functional.linear(visible, weight, encoder.patch_embed.proj.bias)
        x = x + encoder.positions[0, 1:][kept]
        cls = (encoder.cls + encoder.positions[:, :1]).to(x.dtype).expand(len(x), -1, -1)
        return encoder.run_blocks(torch.cat([cls, x], dim=1))

    @torch.no_grad()
    def _initialize(self, side: int) -> None:
        """As the MAE reference: Xavier-uniform matrices (the patch embedding seen as one), tokens normal 0.02."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        encoder = self.encoder
        nn.init.xavier_uniform_(encoder.patch_embed.proj.weight.view(encoder.embed_dim, -1))
        nn.init.normal_(encoder.cls, std=0.02)
        nn.init.normal_(self.decoder.mask_token, std=0.02)
        encoder.positions.copy_(sincos_positions(encoder.embed_dim, side))
        encoder.positions.requires_grad_(False)


@dataclass(frozen=True, slots=True)
class MaeInputs:
    """A prepared micro-batch: `patches` `(B, L, P)` float32 and which of them are hidden."""

    patches: Tensor
    masking: Masking


class Mae(Method):
    """MAE as a method of the loop."""

    network: MaeNetwork

    def __init__(self, recipe: Recipe, config: MaeConfig) -> None:
        super().__init__(recipe)
        self.config = config
        encoder = build_backbone(recipe.model, image_size_px=recipe.image_size_px)
        self.network = MaeNetwork(encoder, config)
        load_start_weights(encoder, recipe.model.init_from)

    def draw(self, share: Share) -> dict[str, NDArray[Any]]:
        """The mask, ranked on the host: the same order on every device."""
        length = (self.config.crop.size_px // self.recipe.model.patch_size) ** 2
        noise = share.draw(Purpose.MASK, lambda rng: rng.random((share.unit_images, length)))
        return rank_noise(noise.reshape(-1, length), ratio=self.config.mask_ratio)

    def prepare(self, views: Sequence[Tensor], share: Share, drawn: Mapping[str, Tensor] | None = None) -> MaeInputs:
        """Normalise the crop, cut it into patches; the mask as it was drawn."""
        if drawn is None:
            drawn = to_device(self.draw(share), views[0].device)
        images = augment(views[0], share, self.recipe.augment, purpose=Purpose.AUGMENT_GLOBAL, by=self.kernels)
        return MaeInputs(patches=patchify(images, self.recipe.model.patch_size), masking=Masking(**drawn))

    def losses(self, network: nn.Module, inputs: MaeInputs, values: StepValues) -> StepLosses:
        """The mean squared error on hidden patches."""
        del values
        predictions = network(inputs.patches, inputs.masking.kept, inputs.masking.restore)
        targets = self.compiled(normalize_patches)(inputs.patches) if self.config.norm_pixels else inputs.patches
        loss = self.compiled(mae_loss)(predictions, targets, inputs.masking.removed)
        return StepLosses(total=loss, parts={"mae": loss.detach()}, watched={})

    def multipliers(self, name: str) -> Multipliers:
        """No decay for biases and norms; one learning rate."""
        return decay_matrices_only(name, dict(self.network.named_parameters())[name].ndim)

    def clip_modules(self) -> dict[str, nn.Module]:
        """Encoder and decoder."""
        return {"encoder": self.network.encoder, "decoder": self.network.decoder}

    def shard_modules(self) -> list[nn.Module]:
        """Blocks of both halves, then the network."""
        return [*self.network.encoder.blocks, *self.network.decoder.blocks, self.network]

    def export_backbone(self) -> Backbone:
        """The encoder."""
        return self.network.encoder

    @torch.no_grad()
    def pictures(self, network: nn.Module, inputs: MaeInputs) -> Mapping[str, Tensor]:
        """Masked input, reconstruction (visible patches as they were) and original of the first few images."""
        patches, masking = inputs.patches[:NUM_PICTURES], inputs.masking.first(NUM_PICTURES)
        predictions = network(patches, masking.kept, masking.restore).float()
        if self.config.norm_pixels:
            variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
            predictions = predictions * (variance + 1e-6).sqrt() + mean
        hidden = masking.removed.unsqueeze(-1)
        shown = {
            "masked": patches.masked_fill(hidden, 0.0),
            "reconstruction": torch.where(hidden, predictions, patches),
            "original": patches,
        }
        return {name: unpatchify(value, self.recipe.model.patch_size) for name, value in shown.items()}
