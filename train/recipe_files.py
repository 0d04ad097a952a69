"""Recipes by name or path: the ones that come with the package, a user's own, and single values set in them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from shards.errors import ConfigError
from shards.settings import parse, read_text, yaml_value
from train.recipe import Recipe
from train.usage import check_usage

__all__ = ["load_recipe", "recipe_names"]


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("train") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(
    name_or_path: str | Path, overrides: Mapping[str, Any] | None = None, *, of_earlier_run: bool = False
) -> Recipe:
    """Read a recipe by name or path and set single values in it.

    Args:
        name_or_path: A name from `recipe_names()` or the path of a YAML file.
        overrides: Dotted keys to values, such as `{"model.size": "small"}`. `run.steps` takes the place of a recipe's
            `run.epochs`, and the other way round.
        of_earlier_run: Accept settings without effect, which earlier releases did not refuse.

    Raises:
        ConfigError: The file is missing or no YAML, or settings are unknown, wrong or without effect; all of them are
            named, with the nearest known key.
    """
    where, text = _read(str(name_or_path))
    document = yaml_value(text, where=where)
    if not isinstance(document, dict):
        raise ConfigError(f"{where}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    for key, value in (overrides or {}).items():
        _set(document, key, value, where)
    for key, other in (("run.steps", "epochs"), ("run.epochs", "steps")):
        if key in (overrides or {}) and f"run.{other}" not in (overrides or {}):
            document["run"].pop(other, None)
    recipe = parse(Recipe, document, where=where)
    if not of_earlier_run:
        check_usage(recipe, where=where)
    return recipe


def _read(name: str) -> tuple[str, str]:
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise ConfigError(f"no recipe file {path}", hint=f"recipes by name: {', '.join(recipe_names())}")
        return str(path), read_text(path)
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(recipe_names())}"
        raise ConfigError(f"no recipe named {name}", hint=hint)
    return f"{name}.yaml", (resources.files("train") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def _set(document: dict[str, Any], key: str, value: object, where: str) -> None:
    *parents, last = key.split(".")
    section = document
    for part in parents:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise ConfigError(f"{where}: cannot set {key}: {part} is a value, not a section")
    section[last] = value
