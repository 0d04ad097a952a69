"""How many weights a Vision Transformer has: the encoder alone, and with MAE's decoder as BioVFM counts.

Position embeddings are fixed in MAE and left out of the total, as in the paper's axis (31.2, 47.4, 111.66, 329.24 M);
in the encoder they are counted (5.52, 21.67, 85.80, 303.30 M).
"""

from __future__ import annotations

import math
from typing import Final

SIZES: Final = {
    "nano": (64, 2),
    "tiny": (192, 12),
    "small": (384, 12),
    "base": (768, 12),
    "large": (1024, 24),
    "huge": (1280, 32),
}
"""Size → (width, depth)."""

_CHANNELS: Final = 3


def encoder_params(width: int, depth: int, *, patch_px: int = 16, image_px: int = 224) -> int:
    """Weights of a plain ViT encoder: patches, CLS, positions, blocks, final norm."""
    positions = (image_px // patch_px) ** 2 + 1
    return positions * width + _trainable_encoder(width, depth, patch_px)


def mae_params(width: int, depth: int, *, patch_px: int = 16, decoder_width: int = 512, decoder_depth: int = 8) -> int:
    """Trained weights of MAE: encoder and decoder, positions fixed."""
    pixels = _CHANNELS * patch_px**2
    embed = width * decoder_width + decoder_width
    mask, norm = decoder_width, 2 * decoder_width
    predict = decoder_width * pixels + pixels
    blocks = decoder_depth * _block(decoder_width)
    return _trainable_encoder(width, depth, patch_px) + embed + mask + blocks + norm + predict


def encoder_params_m(model: str) -> float:
    """Millions of weights of a named size at 224 px; `nan` for another name."""
    name = model.lower().removeprefix("vit-").removeprefix("vit_")
    if name not in SIZES:
        return math.nan
    return encoder_params(*SIZES[name], patch_px=14 if name == "huge" else 16) / 1e6


def _trainable_encoder(width: int, depth: int, patch_px: int) -> int:
    patches = _CHANNELS * patch_px**2 * width + width
    cls, norm = width, 2 * width
    return patches + cls + depth * _block(width) + norm


def _block(width: int) -> int:
    """Two norms, attention with bias, a feed-forward four times as wide."""
    attention = 4 * width**2 + 4 * width
    feed_forward = 8 * width**2 + 5 * width
    return attention + feed_forward + 4 * width
