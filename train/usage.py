"""Does a recipe ask for something that its method cannot do? Checked as a whole, before any work.

A setting that changes nothing is an error: whoever sets it believes that it does something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shards.errors import ConfigError
from train.recipe import AugmentConfig, CropConfig, DinoConfig, HeadConfig, MaeConfig, Recipe, WatchConfig

__all__ = ["check_usage", "without_unused"]

Neutral = dict[str, tuple[Any, str]]
"""Setting → the value that asks for nothing, and why no other one has an effect."""

_COLOUR = "MAE trains on plain crops"
_COLLAPSE = "MAE has no teacher that could collapse"
_AUGMENT, _WATCH, _HEAD = AugmentConfig(), WatchConfig(), HeadConfig()
_ON_GRAY = ("brightness", "contrast")
_JITTER = (*_ON_GRAY, "saturation", "hue")

_UNUSED_BY_MAE: Neutral = {
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


def check_usage(recipe: Recipe, *, where: str = "the recipe") -> None:
    """Refuse settings that the method ignores or cannot work with; all of them are named.

    Args:
        recipe: Whole.
        where: File to name in the error.

    Raises:
        ConfigError: With each key and what to do about it.
    """
    unused = [
        f"{key}={_shown(given)} has no effect, since {why} (remove it, or set it to {_shown(neutral)})"
        for key, (given, neutral, why) in _unused(recipe).items()
    ]
    mistakes = [*unused, *_impossible(recipe)]
    if mistakes:
        raise ConfigError(f"{where}: {'; '.join(mistakes)}", hint="change or remove the named keys")


def without_unused(recipe: Recipe) -> Recipe:
    """The same recipe with the ignored settings at their neutral values: what earlier releases trained by it.

    A head without a loss stays, since its weights are in that run's checkpoints.
    """
    document = recipe.model_dump(mode="json")
    for key, (_, neutral, _) in _unused(recipe).items():
        section, name = _place(document, key)
        if key != "method.ibot_head":
            section[name] = neutral
    return Recipe.model_validate(document)


def _place(document: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *sections, name = key.split(".")
    for section in sections:
        document = document[section]
    return document, name


def _unused(recipe: Recipe) -> dict[str, tuple[Any, Any, str]]:
    """Setting → its value, its neutral value and the reason, for all that are set and have no effect."""
    method = recipe.method
    neutral = _UNUSED_BY_MAE if isinstance(method, MaeConfig) else _unused_by_dinov2(recipe, method)
    found: dict[str, tuple[Any, Any, str]] = {}
    for key, (value, why) in neutral.items():
        given: Any = recipe
        for part in key.split("."):
            given = getattr(given, part)
        asks_for_nothing = given == value or (given == 0 and key.removeprefix("augment.") in _JITTER)
        if not asks_for_nothing:
            found[key] = given, value, why
    return found


def _unused_by_dinov2(recipe: Recipe, method: DinoConfig) -> Neutral:
    return {**_unused_augmentation(recipe), **_unused_objectives(recipe, method)}


def _unused_augmentation(recipe: Recipe) -> Neutral:
    config, unused = recipe.augment, Neutral()
    strengths: tuple[str, ...] = _JITTER
    if recipe.model.in_chans == 1:
        why, strengths = "model.in_chans=1 leaves no colour to change", _ON_GRAY
        unused["augment.gray_probability"] = (0.0, why)
        unused |= {f"augment.{n}": (getattr(_AUGMENT, n), why) for n in _JITTER if n not in _ON_GRAY}
    if config.jitter_probability == 0:
        unused |= {f"augment.{n}": (getattr(_AUGMENT, n), "augment.jitter_probability is 0") for n in _JITTER}
    elif not any(getattr(config, n) for n in strengths):
        unused["augment.jitter_probability"] = (0.0, f"{', '.join(strengths)} are 0")
    if config.blur == "none":
        unused["augment.blur_sigma"] = (_AUGMENT.blur_sigma, "augment.blur is none")
    return unused


def _unused_objectives(recipe: Recipe, method: DinoConfig) -> Neutral:
    unused, fields = Neutral(), DinoConfig.model_fields
    if method.teacher_temperature[0] == method.teacher_temperature[1]:
        why = "both values of method.teacher_temperature are equal"
        unused["method.teacher_temperature_warmup"] = (fields["teacher_temperature_warmup"].default, why)
    if method.mask_probability == 0:
        unused |= {
            f"method.{n}": (fields[n].default, "method.mask_probability is 0")
            for n in ("mask_ratio", "ibot_weight", "ibot_head")
        }
    if method.ibot_weight == 0:
        unused["method.ibot_head"] = (None, "method.ibot_weight is 0")
    for name in ("head", "ibot_head"):
        head = getattr(method, name)
        if head is not None and head.layers == 1:
            unused[f"method.{name}.hidden"] = (_HEAD.hidden, f"method.{name}.layers is 1")
    if recipe.watch.collapse_patience == 0:
        unused |= {
            f"watch.{n}": (getattr(_WATCH, n), "watch.collapse_patience is 0")
            for n in ("collapse_after", "min_feature_std")
        }
    return unused


def _impossible(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.method, MaeConfig):
        yield from _impossible_for_mae(recipe, recipe.method)
    else:
        yield from _impossible_for_dinov2(recipe, recipe.method)
    for name, crop in _crop_groups(recipe):
        if not 0 < crop.scale[0] <= crop.scale[1] <= 1:
            yield f"{name}.scale={_shown(crop.scale)} is no range of shares of an image (0 < low <= high <= 1)"
        if not 0 < crop.ratio[0] <= crop.ratio[1]:
            yield f"{name}.ratio={_shown(crop.ratio)} is no range of width to height (0 < low <= high)"


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
    elif method.mask_probability > 0:
        yield from _without_masks(recipe, method)
    if not 0 < recipe.augment.blur_sigma[0] <= recipe.augment.blur_sigma[1]:
        yield f"augment.blur_sigma={_shown(recipe.augment.blur_sigma)} is no range of sigmas (0 < low <= high)"
    if method.koleo_weight > 0 and recipe.run.unit_images == 1:
        yield "run.unit_images=1: KoLeo needs two images (raise it, or set method.koleo_weight to 0)"


def _without_masks(recipe: Recipe, method: DinoConfig) -> Iterator[str]:
    crops = 2 * recipe.run.unit_images
    if int(crops * method.mask_probability) == 0:
        yield (
            f"method.mask_probability={method.mask_probability} masks none of the {crops} global crops of a unit "
            f"(set it to at least {1 / crops:.4g}, or raise run.unit_images)"
        )
    patches = (method.global_crops.size_px // recipe.model.patch_size) ** 2
    if int(patches * method.mask_ratio[1]) == 0:
        yield (
            f"method.mask_ratio={_shown(method.mask_ratio)} masks none of the {patches} patches of a global crop "
            f"(raise its end to at least {1 / patches:.4g})"
        )


def _crop_groups(recipe: Recipe) -> list[tuple[str, CropConfig]]:
    if isinstance(recipe.method, MaeConfig):
        return [("method.crop", recipe.method.crop)]
    return [("method.global_crops", recipe.method.global_crops), ("method.local_crops", recipe.method.local_crops)]


def _shown(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
