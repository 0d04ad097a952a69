"""Small recipes for tests."""

from __future__ import annotations

from typing import Any

from train.recipe import Recipe


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        base[key] = _merged(dict(base[key]), value) if both else value
    return base


def mae_recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(
        _merged(
            {
                "name": "test-mae",
                "method": {
                    "name": "mae",
                    "crop": {"size_px": 32},
                    "decoder_width": 32,
                    "decoder_depth": 1,
                    "decoder_heads": 2,
                },
                "model": {"size": "nano", "patch_size": 8},
                "optim": {"base_lr": 1e-3, "lr_scaling": "none", "betas": [0.9, 0.95]},
                "run": {"steps": 10, "global_batch": 8, "unit_images": 4, "precision": "fp32"},
            },
            changes,
        )
    )


def dino_recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(
        _merged(
            {
                "name": "test-dinov2",
                "method": {
                    "name": "dinov2",
                    "global_crops": {"num": 2, "size_px": 32, "scale": [0.32, 1.0]},
                    "local_crops": {"num": 2, "size_px": 16, "scale": [0.05, 0.32]},
                    "head": {"prototypes": 64, "hidden": 32, "bottleneck": 16},
                },
                "model": {"size": "nano", "patch_size": 8, "layer_scale": 0.1},
                "augment": {"jitter_probability": 0.8, "gray_probability": 0.2, "blur": "effective"},
                "optim": {"base_lr": 1e-3, "lr_scaling": "none", "clip_norm": 3.0},
                "run": {"steps": 10, "global_batch": 8, "unit_images": 4, "precision": "fp32"},
            },
            changes,
        )
    )
