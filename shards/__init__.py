"""The dataset on storage: shards, index, subsets, order, stream; and what all packages share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package whose public names are imported when they are first used (PEP 562).

    So `import shards.stream` loads no decoder and `import train` no torch. A name must not be that of a module in the
    package, since importing the module would replace it.

    Args:
        package: `__name__` of the package.
        names: Public name → module that defines it.

    Returns:
        Both functions, to be assigned in the package.
    """

    def load(name: str) -> object:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(names[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        return sorted({*vars(sys.modules[package]), *names})

    return load, listed
