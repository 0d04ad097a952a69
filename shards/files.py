"""Local files that appear whole or not at all, mapped ones with their room taken, and strict JSON."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


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


def mapped_array(path: Path, *, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """A new array of zeros in a `.npy` file, mapped to be written.

    Raises:
        OSError: The disk has no room for all of it.
    """
    import numpy as np

    made: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    try:
        with path.open("r+b") as stream:
            reserve(stream.fileno(), path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    return made


def reserve(descriptor: int, num_bytes: int) -> None:
    """Take the room of a file that is mapped: a full disk is an error now, later it ends the process by SIGBUS.

    Raises:
        OSError: There is not so much room.
    """
    if hasattr(os, "posix_fallocate") and num_bytes:  # macOS has none
        os.posix_fallocate(descriptor, 0, num_bytes)


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
