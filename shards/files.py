"""Local files that appear whole or not at all, and strict JSON to put into them."""

from __future__ import annotations

import contextlib
import json
import math
import secrets
from pathlib import Path
from typing import Any


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside it, then rename it into place.

    Args:
        path: The file; its folder is made where needed.
        data: Its content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f".{path.name}.{secrets.token_hex(6)}"
    try:
        with partial.open("xb") as stream:  # its mode follows the umask
            stream.write(data)
        partial.replace(path)
    except OSError as error:
        # The name of the person's file, not of the temporary one.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # where nothing can be written there is nothing to remove
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON, which knows no NaN and no infinity: they become null, and what JSON does not know becomes text.

    Args:
        value: What to write.
        indent: As of `json.dumps`.
    """
    return json.dumps(_finite(value), default=str, allow_nan=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
