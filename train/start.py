"""Weights to begin training with: timm's, or those of an exported folder, brought to our names and sizes."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from shards.errors import ConfigError
from train.backbone import Backbone

__all__ = ["load_start_weights", "read_weights", "resize_positions"]


def load_start_weights(backbone: Backbone, source: str | None) -> None:
    """Fill a backbone from other weights; positions are resized, what the source lacks keeps its start value.

    Args:
        backbone: To be filled in place.
        source: `timm/<name>` (downloaded by timm where it is not cached), an exported folder, or None.

    Raises:
        ConfigError: The source is unknown, or its shapes are those of another model.
    """
    if source is None:
        return
    with torch.no_grad():
        weights = read_weights(source, backbone)
        own = dict(backbone.named_parameters())
        wrong = [name for name, value in weights.items() if name in own and own[name].shape != value.shape]
        if wrong:
            name = wrong[0]
            raise ConfigError(
                f"init_from {source}: {name} has shape {tuple(weights[name].shape)}, this model needs "
                f"{tuple(own[name].shape)}",
                hint="set model.size, model.patch_size and model.ffn to those of the weights",
            )
        for name, value in weights.items():
            if name in own:
                own[name].copy_(value)


def read_weights(source: str, backbone: Backbone) -> dict[str, Tensor]:
    """Weights under our names from `timm/<name>` or an exported folder, positions resized to the backbone.

    Raises:
        ConfigError: There is no such model or folder.
    """
    weights = _read_timm(source.removeprefix("timm/")) if source.startswith("timm/") else _read_folder(Path(source))
    weights = {name: value for name, value in weights.items() if not name.startswith(("head.", "fc_norm."))}
    if "pos_embed" in weights:
        side = round((backbone.positions.shape[1] - 1) ** 0.5)
        weights["pos_embed"] = resize_positions(weights["pos_embed"], side=side)
    return weights


def resize_positions(positions: Tensor, *, side: int) -> Tensor:
    """Another checkpoint's position embedding on our grid: bicubic, as MAE resizes it for fine-tuning.

    Args:
        positions: `(1, 1 + n * n, D)`, CLS first, or `(1, n * n, D)` where the CLS token has its position in it.
        side: Patches a side wanted.

    Returns:
        `(1, 1 + side * side, D)`.
    """
    if round(positions.shape[1] ** 0.5) ** 2 == positions.shape[1]:
        positions = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    old = round((positions.shape[1] - 1) ** 0.5)
    if old == side:
        return positions
    grid = positions[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], resized.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)], dim=1)


def _read_timm(name: str) -> dict[str, Tensor]:
    import timm

    if not timm.is_model(name):
        raise ConfigError(f"init_from: timm has no model {name}", hint="see timm.list_models('vit_*')")
    state: dict[str, Tensor] = timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    return state


def _read_folder(folder: Path) -> dict[str, Tensor]:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ConfigError(
            f"init_from: no {path}", hint="give timm/<name>, or a folder that `biovfm export` wrote (<run>/export)"
        )
    return load_file(path)
