"""Small objects that carry no checksum, read until two replies agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from shards.errors import StoreError
from shards.store.base import Store

__all__ = ["read_settled", "settled"]

_TRIES: Final = 8


def read_settled(store: Store, path: str) -> bytes:
    """The content of a small object, by two replies in a row that are alike; of a local file, by one read.

    A reply that a network damaged is told from an object that is damaged where it lies: the latter comes twice.

    Raises:
        NotFoundError: There is no such object.
        StoreError: No two replies were alike.
    """
    if store.local_path(path) is not None:
        return store.read(path)
    return settled(lambda: store.read(path), f"{store.url}/{path}")


def settled(read: Callable[[], bytes], where: str) -> bytes:
    """What two readings in a row have alike.

    Args:
        read: Reads a few bytes from storage.
        where: Their place, for the error.

    Raises:
        StoreError: No two replies were alike.
    """
    found = read()
    for _ in range(_TRIES):
        before, found = found, read()
        if found == before:
            return found
    raise StoreError(
        f"{where}: {_TRIES} replies in a row differ",
        hint="something between here and the storage changes bytes; run the same command again, or on another network",
    )
