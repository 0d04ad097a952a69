"""Options such as `--set KEY=VALUE`, whose values are read as YAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from shards.errors import ConfigError
from shards.settings import yaml_value


def read_assignments(option: str, texts: Iterable[str], *, example: str) -> dict[str, Any]:
    """The keys and values of a repeated option; of a key given twice the last counts.

    Args:
        option: Its name, such as `--set`.
        texts: What was typed, one `KEY=VALUE` each.
        example: One that is right, for the hint.

    Raises:
        ConfigError: A text is no assignment, or its value no YAML.
    """
    found = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(f"{option} {text}: expected key=value", hint=f"for example {option} {example}")
        found[key] = yaml_value(value, where=f"{option} {text}")
    return found
