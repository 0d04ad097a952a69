"""A finished backbone as a folder that timm and the Hugging Face hub read: `config.json` and `model.safetensors`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from train.backbone import timm_settings
from train.methods import Method
from train.output import write_file, writing
from train.recipe import Recipe

__all__ = ["timm_config", "timm_model", "timm_weights", "whole_weights", "write_export"]

MEAN_OF_PATCHES: Final = {"global_pool": "avg", "fc_norm": False}
"""What the exported timm model returns for an image: the mean of the normed patch tokens, as the probe reads it. With
`fc_norm` timm would move the norm behind the mean."""


def write_export(weights: dict[str, Tensor], recipe: Recipe, folder: Path, *, step: int, dataset: str = "") -> Path:
    """Write an exported backbone.

    `timm.create_model("local-dir:<folder>", pretrained=True, num_classes=0)` loads it, as does a Hugging Face hub
    repository with the same files.

    Args:
        weights: Of the backbone, under its own names, whole tensors.
        recipe: What it was trained by.
        folder: Made if missing.
        step: Steps trained.
        dataset: What it was trained on, for the model card.
    """
    config = timm_config(recipe, step=step)
    tensors = save(timm_weights(weights, recipe), metadata={"format": "pt"})
    config["biovfm"]["weights_sha256"] = hashlib.sha256(tensors).hexdigest()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(tensors)
    write_file(folder / "config.json", json.dumps(config, indent=2) + "\n")
    write_file(folder / "README.md", _card(recipe, step, dataset))
    return folder


def whole_weights(method: Method) -> dict[str, Tensor]:
    """The exported backbone's tensors, gathered where they are sharded (so every rank must call it)."""
    state: Mapping[str, Tensor] = method.export_backbone().state_dict()
    return {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in state.items()}


def timm_model(weights: dict[str, Tensor], recipe: Recipe) -> nn.Module:
    """The plain timm model that loading an export would give.

    Args:
        weights: Of the backbone, under its own names, whole tensors.
        recipe: What it is trained by.
    """
    import timm

    config = timm_config(recipe, step=0)
    model: nn.Module = timm.create_model(config["architecture"], num_classes=0, **config["model_args"])
    model.load_state_dict(timm_weights(weights, recipe))
    return model


def timm_weights(weights: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """Backbone weights as timm names and shapes them: no mask token; with registers, CLS takes its position in.

    Args:
        weights: Of a `Backbone`.
        recipe: What it is trained by.
    """
    out = {name: value.detach().float().cpu().contiguous() for name, value in weights.items() if name != "mask_token"}
    if "reg_token" in out:
        out["cls_token"] = out["cls_token"] + out["pos_embed"][:, :1]
        out["pos_embed"] = out["pos_embed"][:, 1:].contiguous()
    if _needs_unit_layer_scale(recipe):
        for name in [name for name in out if name.endswith(("attn.proj.bias", "mlp.fc2.bias"))]:
            block = ".".join(name.split(".")[:2])
            out[f"{block}.{'ls1' if '.attn.' in name else 'ls2'}.gamma"] = torch.ones_like(out[name])
    return out


def _needs_unit_layer_scale(recipe: Recipe) -> bool:
    """Timm's registered SwiGLU models have LayerScale, and JSON cannot take it away: there it is 1."""
    return recipe.model.ffn == "swiglu" and recipe.model.layer_scale is None


def timm_config(recipe: Recipe, *, step: int) -> dict[str, Any]:
    """The hub folder's `config.json`: a registered architecture, our sizes as its arguments, how to normalise."""
    model, size = recipe.model, recipe.image_size_px
    swiglu, registers = model.ffn == "swiglu", model.registers
    arguments = timm_settings(model, image_size_px=size) | MEAN_OF_PATCHES
    if _needs_unit_layer_scale(recipe):
        arguments["init_values"] = 1.0
    if registers:
        arguments |= {"reg_tokens": registers, "no_embed_class": True}
    luma = (0.299, 0.587, 0.114)
    mean, std = list(recipe.augment.mean), list(recipe.augment.std)
    if model.in_chans == 1:
        mean, std = ([sum(v * w for v, w in zip(values, luma, strict=True))] for values in (mean, std))
    return {
        "architecture": "vit_giant_patch14_dinov2" if swiglu else "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": arguments["embed_dim"],
        "global_pool": MEAN_OF_PATCHES["global_pool"],
        "model_args": {key: value for key, value in arguments.items() if value is not None},
        "pretrained_cfg": {
            "tag": f"biovfm-{recipe.name}",
            "input_size": [model.in_chans, size, size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": mean,
            "std": std,
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
        "biovfm": {"recipe": recipe.model_dump(mode="json"), "step": step},
    }


def _card(recipe: Recipe, step: int, dataset: str) -> str:
    return (
        "---\nlibrary_name: timm\ntags: [image-feature-extraction, biomedical]\n---\n"
        f"# {recipe.name}\n\nViT-{recipe.model.size}/{recipe.model.patch_size} at {recipe.image_size_px} px, "
        f"pretrained by {recipe.method.name} for {step} steps of {recipe.run.global_batch} images"
        + (f" on {dataset}" if dataset else "")
        + ".\n\n```python\nimport timm\n\n"
        'model = timm.create_model("local-dir:PATH_OF_THIS_FOLDER", pretrained=True, num_classes=0)\n'
        "features = model(images)  # the mean of the patch tokens, which the probe reads; (B, D)\n"
        "tokens = model.forward_features(images)  # CLS first, then registers and patches; (B, N, D)\n```\n"
    )
