"""Files of a run's folder: a disk that is full or may not be written is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shards.errors import StoreError
from shards.files import write_text

__all__ = ["write_file", "writing"]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write into an error that names the file and the reason.

    Args:
        path: What is written inside; the file that the system names is preferred.

    Raises:
        StoreError: The disk is full, or the folder may not be written.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write {error.filename or path}: {error.strerror or error}",
            hint="check free space and the folder's rights, then run the same command again",
        ) from error


def write_file(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all.

    Raises:
        StoreError: The disk is full, or the folder may not be written.
    """
    with writing(path):
        write_text(path, text)
