"""Settings that people give: YAML files into pydantic models, and numbers in environment variables.

Every mistake is named with its file and the nearest key, or with its variable.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from shards.errors import ConfigError

if TYPE_CHECKING:
    import yaml

Model = TypeVar("Model", bound=BaseModel)
Default = TypeVar("Default", int, None)
_MOST_BYTES = 4 << 20
_MOST_VALUES = 1 << 20
"""Of one file: far more than any has that a person writes, and a few seconds of reading."""
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls an unknown key of a model and of a dataclass."""


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises:
        ConfigError: It cannot be read, or is no mapping.
    """
    content = yaml_value(read_text(path), where=str(path))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines", hint="correct the file")
    return content


def read_text(path: Path) -> str:
    """The text of a file that a person wrote.

    Raises:
        ConfigError: It cannot be read, or is no UTF-8.
    """
    try:
        with path.open("rb") as stream:  # not all of it: a link may lead to a device that never ends
            data = stream.read(_MOST_BYTES + 1)
        text = data.decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid YAML: it is no UTF-8 text", hint="save it as UTF-8") from error
    except ValueError as error:  # a NUL in its name
        raise ConfigError(f"cannot read {str(path)!r}: {error}", hint="check the path") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path} is larger than {_MOST_BYTES >> 20} MiB", hint="check the path: no such file is")
    return text


def yaml_value(text: str, *, where: str) -> object:
    """What YAML text says.

    Args:
        text: The text.
        where: File or option to name in the error.

    Raises:
        ConfigError: It is no YAML, or holds a value that is none of its type (a 13th month, `!!int x`).
    """
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None and _num_values(node, {}) > _MOST_VALUES:
                raise ConfigError(f"{where} stands for millions of values by its aliases", hint="write them out")
            if node is not None and (twice := _key_twice(node, set())):
                raise ConfigError(f"{where} has the key {twice}", hint="remove one of the two")
            return None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{where} is not valid YAML: {' '.join(str(error).split())}", hint="correct the value"
        ) from error
    except RecursionError as error:
        raise ConfigError(f"{where} is not valid YAML: it is nested too deeply", hint="correct the value") from error
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        # The constructors of dates, numbers and tagged values raise what Python's own conversions raise.
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where} is not valid YAML: a wrong value ({reason})", hint="correct the value") from error


def _num_values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for once its aliases are followed; without end where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        held = node.value if isinstance(node.value, list) else []  # a mapping holds pairs
        inner = (one for entry in held for one in (entry if isinstance(entry, tuple) else (entry,)))
        known[id(node)] = 1 + sum(_num_values(one, known) for one in inner)
    return known[id(node)]


def _key_twice(node: yaml.Node, seen: set[int]) -> str:
    """The first key that stands twice in one mapping, and where; YAML would take the last. Empty where none does."""
    import yaml

    if id(node) in seen or not isinstance(node.value, list):
        return ""
    seen.add(id(node))
    keys: set[tuple[str, str]] = set()
    for entry in node.value:
        key, held = entry if isinstance(entry, tuple) else (None, entry)
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in keys:
                return f"{key.value!r} twice, again in line {key.start_mark.line + 1}"
            keys.add((key.tag, key.value))
        if found := _key_twice(held, seen):
            return found
    return ""


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
        raise ConfigError(f"{where}: {'; '.join(mistakes)}", hint="correct the named keys") from error


def whole_number(name: str, default: Default, *, least: int = 0) -> int | Default:
    """The number in an environment variable; the default where it is not set.

    Raises:
        ConfigError: It is set to something else than a whole number, or to one below `least`.
    """
    text = os.environ.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) < least:
        raise ConfigError(
            f"the environment variable {name} is {text!r}, which is no whole number from {least} on",
            hint=f"correct it, or `unset {name}`",
        )
    return int(text)


def _describe(model: type[BaseModel], location: tuple[int | str, ...], kind: str, message: str) -> str:
    if kind not in _UNKNOWN_KEY:
        return f"{'.'.join(_walk(model, location)[0]) or 'the whole'}: {message.removeprefix('Value error, ')}"
    keys, models = _walk(model, location[:-1])
    known = sorted({name for found in models for name in _names(found)})
    near = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.5)
    name = ".".join([*keys, str(location[-1])])
    if near:
        return f"unknown key {name!r}, did you mean {near[0]!r}?"
    return f"unknown key {name!r}" + (f" (there are {', '.join(known)})" if known else "")


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], list[type[Any]]]:
    """What leads to a place, without the tags that pydantic adds for unions, and the models that may stand there.

    Returns:
        Keys, models; no models where the place is no section.
    """
    keys: list[str] = []
    models: list[type[Any]] = [model]
    for part in location:
        name = str(part)
        if isinstance(part, int):  # of a list
            keys.append(name)
            continue
        fields = [_names(found)[name] for found in models if name in _names(found)]
        if models and not fields:
            models = [found for found in models if _is_tagged(found, name)]
            continue
        keys.append(name)
        models = [found for annotation in fields for found in _models_in(annotation)]
    return keys, models


def _names(model: type[Any]) -> dict[str, Any]:
    """Annotations of the fields by every name that a person may write; of a model or of a dataclass."""
    if dataclasses.is_dataclass(model):
        return get_type_hints(model)
    fields: dict[str, FieldInfo] = model.model_fields
    return {name: field.annotation for key, field in fields.items() for name in (key, field.alias or key)}


def _is_tagged(model: type[Any], tag: str) -> bool:
    return any(tag in get_args(annotation) for annotation in _names(model).values())


def _models_in(annotation: object) -> list[type[Any]]:
    """The sections that an annotation mentions: itself, or members of a union or a list."""
    if isinstance(annotation, type) and (issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]
