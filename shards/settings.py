"""YAML files that people write, into pydantic models; every mistake is named with its file and the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from shards.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises:
        ConfigError: It cannot be read, or is no mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no valid YAML: {' '.join(str(error).split())}", hint="mend the file") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines", hint="mend the file")
    return content


def parse(model: type[Model], content: Mapping[str, Any], *, where: str) -> Model:
    """Validate a mapping; all mistakes are reported at once.

    Args:
        model: The pydantic model.
        content: What was read.
        where: File or option to name in the error.

    Raises:
        ConfigError: One line that names `where`, each wrong key, and for an unknown key the nearest known one.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        mistakes = [_describe(model, item["loc"], item["type"], item["msg"]) for item in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(mistakes)}", hint="mend the named keys") from error


def _describe(model: type[BaseModel], location: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(map(str, location))
    if kind != "extra_forbidden":
        return f"{name or 'the whole'}: {message.removeprefix('Value error, ')}"
    near = difflib.get_close_matches(str(location[-1]), _fields(model, location[:-1]), n=1, cutoff=0.5)
    return f"unknown key {name!r}" + (f", did you mean {near[0]!r}?" if near else "")


def _fields(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for part in location:
        field = model.model_fields.get(str(part))
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return [name for key, field in model.model_fields.items() for name in {key, field.alias or key}]
