"""The pretraining methods: networks and objectives put together, one file a method."""

from __future__ import annotations

from train.methods.base import Method, StepLosses
from train.methods.dinov2 import DinoV2
from train.methods.mae import Mae
from train.recipe import MaeConfig, Recipe

__all__ = ["DinoV2", "Mae", "Method", "StepLosses", "build_method"]


def build_method(recipe: Recipe) -> Method:
    """The method of a recipe, freshly initialised from the recipe's seed on the CPU."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Mae(recipe, recipe.method) if isinstance(recipe.method, MaeConfig) else DinoV2(recipe, recipe.method)
