from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import ConfigError
from tests.mutations import ODD_YAML, error_of, mutated_yaml
from tests.train.recipes import mae_recipe
from train.data import stream_crops
from train.recipe import DinoConfig, Recipe
from train.recipe_files import load_recipe, recipe_names
from train.schedules import mae_lr, schedule


def test_the_promised_recipes_are_there() -> None:
    assert set(recipe_names()) == {"dinov2-short", "dinov2-long", "mae-paper", "mae-default", "tiny", "tiny-dinov2"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_reads_back_as_it_is_written(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "resolved.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe
    assert recipe.name == name


@pytest.mark.parametrize(
    ("name", "lr", "images"),
    [
        ("dinov2-short", 0.004 * 2**0.5, 256_000_000),
        ("dinov2-long", 2e-4 * 3**0.5, 1_920_000_000),
        ("mae-paper", 2.4e-3, 1_024_000_000),
        ("mae-default", 2e-3, 512_000_000),
    ],
)
def test_effective_learning_rate_and_images_of_the_published_recipes(name: str, lr: float, images: int) -> None:
    recipe = load_recipe(name)
    assert recipe.effective_lr == pytest.approx(lr)
    assert recipe.in_steps(1_280_000).run.steps * recipe.run.global_batch == images


@pytest.mark.parametrize(("name", "epochs"), [("mae-paper", 800), ("mae-default", 400)])
@pytest.mark.parametrize("batch", [64, 256, 4096])
@pytest.mark.parametrize("num_samples", [50_000, 21_000_000])
def test_a_recipe_in_epochs_keeps_them_at_any_batch_and_data(
    name: str, epochs: int, batch: int, num_samples: int
) -> None:
    recipe = load_recipe(name, {"run.global_batch": batch}).in_steps(num_samples)
    assert recipe.run.steps * batch / num_samples == pytest.approx(epochs, rel=1e-3)
    assert recipe.run.epochs is None
    middle = schedule(recipe, recipe.run.steps // 2)
    published = mae_lr(epochs / 2, base=recipe.effective_lr, end=0.0, warmup=40, total=epochs)
    assert middle.lr == pytest.approx(published, rel=2e-3)


def test_steps_and_epochs_take_each_others_place(tmp_path: Path) -> None:
    assert load_recipe("mae-paper", {"run.steps": 100}).run.epochs is None
    assert load_recipe("tiny", {"run.epochs": 2.5}).in_steps(128).run.steps == 5
    path = tmp_path / "both.yaml"
    path.write_text(load_recipe("tiny").to_yaml().replace("epochs: null", "epochs: 3"))
    with pytest.raises(ConfigError, match=r"as steps .* or as epochs, one of them"):
        load_recipe(path)


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large", "huge"])
@pytest.mark.parametrize("name", ["dinov2-short", "mae-paper"])
def test_model_and_scale_are_separate_dials(name: str, size: str) -> None:
    recipe = load_recipe(name, {"model.size": size, "run.global_batch": 256, "run.steps": 1000})
    assert (recipe.model.size, recipe.run.global_batch, recipe.run.steps) == (size, 256, 1000)


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        ({"run.stepz": 1}, ["tiny.yaml", "unknown key 'run.stepz', did you mean 'steps'?"]),
        ({"optimizer.lr": 1}, ["unknown key 'optimizer', did you mean 'optim'?"]),
        ({"method.decoder_dept": 1}, ["unknown key 'method.decoder_dept', did you mean 'decoder_depth'?"]),
        ({"method.crop.sizepx": 1}, ["unknown key 'method.crop.sizepx', did you mean 'size_px'?"]),
        (
            {"run.steps": -1, "model.siz": "x"},
            ["run.steps: Input should be greater than or equal to 0", "'model.siz', did you mean 'size'?"],
        ),
        ({"model.patch_size": 7}, ["crops of 64 px are no whole number of 7 px patches"]),
        ({"method.name": "byol"}, ["method", "mae"]),
        ({"seed.x": 1}, ["seed is a value, not a section"]),
    ],
)
def test_mistakes_name_the_file_the_key_and_the_nearest_one(overrides: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("tiny", overrides)
    for message in messages:
        assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("method.student_temperature", 0),
        ("method.teacher_temperature", [0.04, 0]),
        ("method.momentum", [0.9, 1.1]),
        ("method.koleo_weight", -0.1),
        ("augment.brightness", -0.1),
        ("augment.hue", 0.6),
        ("augment.std", [0.2, 0, 0.2]),
        ("optim.base_lr", -1e-3),
        ("optim.base_lr", float("nan")),
        ("optim.betas", [0.9, 1.0]),
        ("optim.layer_decay", 0),
        ("optim.clip_norm", 0),
        ("optim.weight_decay", [-1, 0]),
        ("run.epochs", float("inf")),
    ],
)
def test_a_value_that_no_run_can_use_is_refused_before_any_work(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"tiny-dinov2\.yaml: {key}(\.\d)?: Input should be"):
        load_recipe("tiny-dinov2", {key: value})


def test_nested_keys_of_heads_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"'method.head.hiden', did you mean 'hidden'"):
        load_recipe("dinov2-short", {"method.head.hiden": 1})


@pytest.mark.parametrize(
    ("name", "message"),
    [("tinny", "did you mean tiny?"), ("nothing.yaml", "no recipe file"), ("unheard", "there are: dinov2-long")],
)
def test_a_missing_recipe(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name)
    assert message in str(caught.value)


def test_a_file_that_is_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for text, message in (("a: [", "not valid YAML"), ("- 1", "is a mapping")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_recipe(path)


def test_dinov2_needs_two_global_crops() -> None:
    with pytest.raises(ConfigError, match=r"global_crops\.num must be 2"):
        load_recipe("tiny-dinov2", {"method.global_crops.num": 3})


def test_the_stream_is_asked_for_the_recipes_crops() -> None:
    first, second = stream_crops(load_recipe("dinov2-short"))
    assert (first.num, first.size_px, first.scale, first.interpolation) == (2, 224, (0.32, 1.0), "bicubic")
    assert (second.num, second.size_px, second.scale) == (8, 96, (0.05, 0.32))
    assert first.flip_probability == 0.5


def test_a_recipe_cannot_be_changed_by_accident() -> None:
    recipe = mae_recipe()
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


def test_yaml_keeps_the_objective() -> None:
    document = yaml.safe_load(load_recipe("dinov2-long").to_yaml())
    method = Recipe.model_validate(document).method
    assert isinstance(method, DinoConfig)
    assert method.ibot_head is not None
    assert (method.head.bottleneck, method.ibot_head.bottleneck) == (384, 256)


def recipe_or_error(path: Path) -> bool:
    error = error_of(ConfigError, lambda: load_recipe(path))
    assert error is None or (path.name in error.message and "\n" not in error.message)
    return error is None


DOCUMENTS = [yaml.safe_load(load_recipe(name).to_yaml()) for name in ("tiny", "tiny-dinov2")]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.one_of(*map(mutated_yaml, DOCUMENTS)))
def test_a_damaged_recipe_is_a_recipe_or_one_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    recipe_or_error(path)


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.sampled_from(ODD_YAML).map(str.encode), st.binary(max_size=60)))
def test_any_bytes_are_no_recipe_but_one_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(data)
    assert not recipe_or_error(path)


def test_absurdly_large_numbers_of_a_recipe_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"run\.global_batch"):
        load_recipe("tiny", {"run.global_batch": 10**400})
    with pytest.raises(ConfigError, match=r"method\.crop\.size_px"):
        load_recipe("tiny", {"method.crop.size_px": 16 * 10**200})
