"""Does a recipe ask for something that its method cannot do? Checked as a whole, before any work.

A setting that changes nothing is an error: whoever sets it believes that it does something.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from shards.errors import ConfigError
from train.recipe import AugmentConfig, CropConfig, DinoConfig, MaeConfig, Recipe, WatchConfig

__all__ = ["check_usage", "without_unused"]

_COLOUR = "MAE trains on plain crops"
_COLLAPSE = "MAE has no teacher that could collapse"
_AUGMENT, _WATCH = AugmentConfig(), WatchConfig()
_JITTER = ("brightness", "contrast", "saturation", "hue")

_UNUSED_BY_MAE: dict[str, tuple[Any, str]] = {
    "model.drop_path": (0.0, "MAE leaves out patches, not residual branches"),
    "optim.layer_decay": (1.0, "MAE pretrains all layers at one rate"),
    "optim.patch_embed_lr": (1.0, "MAE pretrains all layers at one rate"),
    "optim.freeze_last_layer": (0.0, "MAE has no head over prototypes"),
    **{
        f"augment.{name}": (getattr(_AUGMENT, name), _COLOUR)
        for name in AugmentConfig.model_fields
        if name not in {"mean", "std"}
    },
    **{
        f"watch.{name}": (getattr(_WATCH, name), _COLLAPSE)
        for name in ("collapse_patience", "collapse_after", "min_feature_std")
    },
}
"""Setting → its value in recipes of MAE, and why no other one has an effect."""


def check_usage(recipe: Recipe, *, where: str = "the recipe") -> None:
    """Refuse settings that the method ignores or cannot work with; all of them are named.

    Args:
        recipe: Whole.
        where: File to name in the error.

    Raises:
        ConfigError: With each key and what to do about it.
    """
    mistakes = [*_unused(recipe), *_impossible(recipe)]
    if mistakes:
        raise ConfigError(f"{where}: {'; '.join(mistakes)}", hint="change or remove the named keys")


def without_unused(recipe: Recipe) -> Recipe:
    """The same recipe with the ignored settings at their neutral values: what earlier releases trained by it."""
    if not isinstance(recipe.method, MaeConfig):
        return recipe
    document = recipe.model_dump(mode="json")
    for key, (neutral, _) in _UNUSED_BY_MAE.items():
        section, _, name = key.partition(".")
        document[section][name] = neutral
    return Recipe.model_validate(document)


def _unused(recipe: Recipe) -> Iterator[str]:
    neutral = dict(_UNUSED_BY_MAE) if isinstance(recipe.method, MaeConfig) else _unused_by_dinov2(recipe, recipe.method)
    for key, (value, why) in neutral.items():
        section, _, name = key.partition(".")
        given = getattr(getattr(recipe, section), name)
        if given != value:
            yield f"{key}={_shown(given)} has no effect, since {why} (remove it, or set it to {_shown(value)})"


def _unused_by_dinov2(recipe: Recipe, method: DinoConfig) -> Mapping[str, tuple[Any, str]]:
    unused: dict[str, tuple[Any, str]] = {}
    if recipe.augment.jitter_probability == 0:
        unused |= {f"augment.{n}": (getattr(_AUGMENT, n), "augment.jitter_probability is 0") for n in _JITTER}
    if recipe.augment.blur == "none":
        unused["augment.blur_sigma"] = (_AUGMENT.blur_sigma, "augment.blur is none")
    if method.teacher_temperature[0] == method.teacher_temperature[1]:
        default = DinoConfig.model_fields["teacher_temperature_warmup"].default
        unused["method.teacher_temperature_warmup"] = (default, "both values of method.teacher_temperature are equal")
    return unused


def _impossible(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.method, MaeConfig):
        yield from _impossible_for_mae(recipe, recipe.method)
    else:
        yield from _impossible_for_dinov2(recipe, recipe.method)
    for name, crop in _crop_groups(recipe):
        if not 0 < crop.scale[0] <= crop.scale[1] <= 1:
            yield f"{name}.scale={_shown(crop.scale)} is no range of shares of an image (0 < low <= high <= 1)"


def _impossible_for_mae(recipe: Recipe, method: MaeConfig) -> Iterator[str]:
    patches = (method.crop.size_px // recipe.model.patch_size) ** 2
    if int(patches * (1 - method.mask_ratio)) == 0:
        yield (
            f"method.mask_ratio={method.mask_ratio} keeps none of the {patches} patches of a crop "
            f"(set it to at most {1 - 1 / patches:.4g})"
        )
    if recipe.model.registers:
        yield f"model.registers={recipe.model.registers} would not be trained by MAE (set it to 0, or use DINOv2)"
    if method.crop.num != 1:
        yield f"method.crop.num={method.crop.num}: MAE sees one crop of an image (set it to 1)"
    if method.decoder_width % 4 or method.decoder_width % method.decoder_heads:
        yield (
            f"method.decoder_width={method.decoder_width} must be a multiple of 4 and of "
            f"method.decoder_heads={method.decoder_heads}"
        )


def _impossible_for_dinov2(recipe: Recipe, method: DinoConfig) -> Iterator[str]:
    if method.centering == "sinkhorn" and recipe.run.accumulate > 1:
        yield (
            f"run.accumulate={recipe.run.accumulate} with method.centering=sinkhorn: targets must be balanced over a "
            "whole step's rows, and a micro-batch has only a part of them (use run.checkpoint_activations=true or more "
            "ranks instead, or method.centering=ema)"
        )
    if not 0 <= method.mask_ratio[0] <= method.mask_ratio[1] <= 1:
        yield f"method.mask_ratio={_shown(method.mask_ratio)} is no range of shares (0 <= low <= high <= 1)"


def _crop_groups(recipe: Recipe) -> list[tuple[str, CropConfig]]:
    if isinstance(recipe.method, MaeConfig):
        return [("method.crop", recipe.method.crop)]
    return [("method.global_crops", recipe.method.global_crops), ("method.local_crops", recipe.method.local_crops)]


def _shown(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
