"""Pictures of what a method does, for people."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from train.recipe import AugmentConfig

__all__ = ["save_reconstructions"]

GAP_PX = 2


def save_reconstructions(pictures: Mapping[str, Tensor], config: AugmentConfig, out: Path) -> Path:
    """Write `reconstructions.png` (one row a kind, one column an image) and the same as `reconstructions.npz`.

    Args:
        pictures: Kind to `(B, C, H, W)` normalised images.
        config: How they were normalised.
        out: Folder.
    """
    arrays = {name: to_uint8(images, config) for name, images in pictures.items()}
    np.savez_compressed(out / "reconstructions.npz", **arrays)  # type: ignore[arg-type]  # numpy's stub names one keyword
    rows = [np.concatenate([_framed(image) for image in images], axis=1) for images in arrays.values()]
    path = out / "reconstructions.png"
    Image.fromarray(np.concatenate(rows, axis=0)).save(path)
    return path


def to_uint8(images: Tensor, config: AugmentConfig) -> np.ndarray:
    """Normalised `(B, C, H, W)` to `(B, H, W, 3)` uint8."""
    x = images.float().cpu().permute(0, 2, 3, 1).numpy()
    mean, std = np.array(config.mean), np.array(config.std)
    if x.shape[-1] == 1:
        luma = np.array([0.299, 0.587, 0.114])
        mean, std = mean @ luma, std @ luma
    levels = np.clip((x * std + mean) * 255, 0, 255).round().astype(np.uint8)
    return np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels


def _framed(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((GAP_PX, GAP_PX), (GAP_PX, GAP_PX), (0, 0)), constant_values=255)
