"""Whole numbers in environment variables: ranks, tasks and sizes, as torchrun and schedulers give them."""

from __future__ import annotations

import os
from typing import TypeVar

from shards.errors import ConfigError

__all__ = ["whole_number"]

Default = TypeVar("Default", int, None)


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
