from __future__ import annotations

from typing import Any

import pytest

from shards.errors import ConfigError
from tests.train.recipes import dino_recipe, mae_recipe
from train.recipe import Recipe
from train.recipe_files import load_recipe, recipe_names
from train.usage import check_usage, without_unused


@pytest.mark.parametrize("name", recipe_names())
def test_the_shipped_recipes_use_all_that_they_set(name: str) -> None:
    check_usage(load_recipe(name))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"drop_path": 0.3}}, r"model\.drop_path=0\.3 has no effect"),
        ({"model": {"registers": 4}}, r"model\.registers=4 would not be trained"),
        ({"optim": {"layer_decay": 0.9}}, r"optim\.layer_decay=0\.9 has no effect"),
        ({"optim": {"patch_embed_lr": 0.2}}, r"optim\.patch_embed_lr=0\.2 has no effect"),
        ({"optim": {"freeze_last_layer": 0.1}}, r"optim\.freeze_last_layer=0\.1 has no effect"),
        ({"augment": {"jitter_probability": 0.8}}, r"augment\.jitter_probability=0\.8 has no effect"),
        ({"augment": {"hue": 0.3}}, r"augment\.hue=0\.3 has no effect"),
        ({"augment": {"gray_probability": 0.2}}, r"augment\.gray_probability=0\.2 has no effect"),
        ({"augment": {"blur": "effective"}}, r"augment\.blur=effective has no effect"),
        ({"augment": {"blur_sigma": [0.1, 1.0]}}, r"augment\.blur_sigma=\[0\.1, 1\.0\] has no effect"),
        ({"augment": {"solarize_probability": 0.2}}, r"augment\.solarize_probability=0\.2 has no effect"),
        ({"watch": {"collapse_patience": 3}}, r"watch\.collapse_patience=3 has no effect"),
        ({"method": {"mask_ratio": 0.95}}, r"keeps none of the 16 patches.*at most 0\.9375"),
        ({"method": {"crop": {"num": 2, "size_px": 32}}}, r"method\.crop\.num=2"),
        ({"method": {"crop": {"scale": [0.9, 0.2], "size_px": 32}}}, r"method\.crop\.scale=\[0\.9, 0\.2\]"),
        ({"method": {"decoder_heads": 3}}, r"decoder_width=32 must be a multiple of 4 and of method\.decoder_heads=3"),
    ],
)
def test_what_mae_cannot_use_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_usage(mae_recipe(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": {"centering": "sinkhorn"}, "run": {"accumulate": 2}},
            r"run\.accumulate=2 .*sinkhorn.*a micro-batch",
        ),
        (
            {"augment": {"jitter_probability": 0.0, "hue": 0.2}},
            r"augment\.hue=0\.2 .* augment\.jitter_probability is 0",
        ),
        ({"augment": {"blur": "none", "blur_sigma": [1, 2]}}, r"augment\.blur_sigma=.* augment\.blur is none"),
        (
            {"method": {"teacher_temperature": [0.05, 0.05], "teacher_temperature_warmup": 0.5}},
            r"method\.teacher_temperature_warmup=0\.5 .* are equal",
        ),
        ({"method": {"mask_ratio": [0.5, 0.1]}}, r"method\.mask_ratio=\[0\.5, 0\.1\] is no range"),
        ({"model": {"in_chans": 1}}, r"augment\.gray_probability=0\.2 .* model\.in_chans=1 leaves no colour"),
        (
            {"model": {"in_chans": 1}, "augment": {"gray_probability": 0, "saturation": 0.5, "hue": 0.3}},
            r"augment\.saturation=0\.5 .*model\.in_chans=1.*; augment\.hue=0\.3 .*model\.in_chans=1",
        ),
        (
            {"augment": {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0}},
            r"augment\.jitter_probability=0\.8 .* brightness, contrast, saturation, hue are 0",
        ),
        (
            {"model": {"in_chans": 1}, "augment": {"gray_probability": 0, "brightness": 0, "contrast": 0}},
            r"augment\.jitter_probability=0\.8 .* brightness, contrast are 0",
        ),
        (
            {"method": {"mask_probability": 0, "mask_ratio": [0.2, 0.3], "ibot_weight": 2}},
            r"method\.mask_ratio=.* method\.mask_probability is 0.*; method\.ibot_weight=2\.0 has no effect",
        ),
        (
            {"method": {"ibot_weight": 0, "ibot_head": {"prototypes": 8}}},
            r"method\.ibot_head=.* method\.ibot_weight is 0",
        ),
        ({"method": {"head": {"layers": 1}}}, r"method\.head\.hidden=32 .* method\.head\.layers is 1"),
        (
            {"watch": {"collapse_patience": 0, "min_feature_std": 0.5}},
            r"watch\.min_feature_std=0\.5 .* watch\.collapse_patience is 0",
        ),
        ({"method": {"mask_probability": 0.1}}, r"masks none of the 8 global crops of a unit .*at least 0\.125"),
        ({"method": {"mask_ratio": [0.0, 0.05]}}, r"masks none of the 16 patches .*at least 0\.0625"),
        ({"augment": {"blur_sigma": [2, 0.1]}}, r"augment\.blur_sigma=\[2\.0, 0\.1\] is no range"),
        ({"run": {"unit_images": 1}}, r"run\.unit_images=1: KoLeo needs two images"),
        ({"method": {"local_crops": {"ratio": [2, 1], "size_px": 16}}}, r"method\.local_crops\.ratio=\[2\.0, 1\.0\]"),
        ({"method": {"local_crops": {"scale": [0.0, 0.2], "size_px": 16}}}, r"method\.local_crops\.scale"),
    ],
)
def test_what_dinov2_cannot_use_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_usage(dino_recipe(**changes))


@pytest.mark.parametrize(
    "recipe",
    [
        mae_recipe(),
        mae_recipe(augment={"brightness": 0, "hue": 0}),
        dino_recipe(run={"accumulate": 2}, model={"registers": 4}),
        dino_recipe(model={"in_chans": 1}, augment={"gray_probability": 0}),
        dino_recipe(model={"in_chans": 1}, augment={"gray_probability": 0, "saturation": 0, "hue": 0}),
        dino_recipe(method={"mask_probability": 0}),
    ],
)
def test_what_a_method_uses_is_accepted(recipe: Recipe) -> None:
    check_usage(recipe)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"tiny\.yaml: model\.drop_path=0\.1.*; optim\.layer_decay=0\.9"):
        load_recipe("tiny", {"model.drop_path": 0.1, "optim.layer_decay": 0.9})


def test_a_recipe_of_an_earlier_run_may_hold_them() -> None:
    recipe = load_recipe("tiny", {"model.drop_path": 0.1}, of_earlier_run=True)
    assert without_unused(recipe) == load_recipe("tiny")


def test_a_gray_run_of_an_earlier_release_goes_on_with_the_recipe_that_says_the_same() -> None:
    earlier = dino_recipe(model={"in_chans": 1}, augment={"saturation": 0.5})
    assert without_unused(earlier) == dino_recipe(model={"in_chans": 1}, augment={"gray_probability": 0})


def test_a_head_without_a_loss_stays_in_a_recipe_of_an_earlier_run() -> None:
    earlier = dino_recipe(method={"ibot_weight": 0, "ibot_head": {"prototypes": 8}})
    assert without_unused(earlier) == earlier
