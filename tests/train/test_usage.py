from __future__ import annotations

from typing import Any

import pytest

from shards.errors import ConfigError
from tests.train.recipes import dino_recipe, mae_recipe
from train.recipe import Recipe, load_recipe, recipe_names
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
        ({"method": {"local_crops": {"scale": [0.0, 0.2], "size_px": 16}}}, r"method\.local_crops\.scale"),
    ],
)
def test_what_dinov2_cannot_use_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_usage(dino_recipe(**changes))


@pytest.mark.parametrize("recipe", [mae_recipe(), dino_recipe(run={"accumulate": 2}, model={"registers": 4})])
def test_what_a_method_uses_is_accepted(recipe: Recipe) -> None:
    check_usage(recipe)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"tiny\.yaml: model\.drop_path=0\.1.*; optim\.layer_decay=0\.9"):
        load_recipe("tiny", {"model.drop_path": 0.1, "optim.layer_decay": 0.9})


def test_a_recipe_of_an_earlier_run_may_hold_them() -> None:
    recipe = load_recipe("tiny", {"model.drop_path": 0.1}, of_earlier_run=True)
    assert without_unused(recipe) == load_recipe("tiny")
