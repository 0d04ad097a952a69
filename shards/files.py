"""Local files that appear whole or not at all, mapped ones with their room taken, and JSON: strict where written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.errors import BiovfmError

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


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in what a library raises of it: Arrow does not.

    Raises:
        OSError: With the file's name.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


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


def parse_json(data: bytes | str) -> Any:
    """What JSON says.

    Raises:
        ValueError: It is no JSON, no UTF-8, or nested more deeply than can be read.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def json_object(data: bytes | str, *, where: str, error: type[BiovfmError], hint: str) -> dict[str, Any]:
    """The object that a file of JSON holds.

    Args:
        data: The file's content.
        where: The file, to be named.
        error: What is raised where there is none.
        hint: What to do about it.

    Raises:
        BiovfmError: Of the class `error`: it is no JSON, or no object.
    """
    try:
        found = parse_json(data)
    except ValueError as mistake:
        reason = " ".join(str(mistake).split())[:120]
        raise error(f"{where} is damaged: it is no JSON ({reason})", hint=hint) from mistake
    if not isinstance(found, dict):
        raise error(f"{where} is damaged: it holds no JSON object", hint=hint)
    return found


def read_json_object(path: Path, *, error: type[BiovfmError], hint: str) -> dict[str, Any]:
    """`json_object` of a local file.

    Raises:
        BiovfmError: Of the class `error`: the file cannot be read, or holds no object.
    """
    try:
        data = path.read_bytes()
    except OSError as mistake:
        raise error(f"cannot read {path}: {mistake.strerror}", hint=hint) from mistake
    return json_object(data, where=str(path), error=error, hint=hint)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
