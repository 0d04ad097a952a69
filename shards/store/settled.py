"""Small objects that carry no checksum, read until two replies agree."""

from __future__ import annotations

from typing import Final

from shards.errors import StoreError
from shards.store.base import Store

__all__ = ["read_settled"]

_TRIES: Final = 8


def read_settled(store: Store, path: str) -> bytes:
    """The content of a small object, by two replies in a row that are alike; of a local file, by one read.

    A reply that a network damaged is told from an object that is damaged where it lies: the latter comes twice.

    Raises:
        NotFoundError: There is no such object.
        StoreError: No two replies were alike.
    """
    found = store.read(path)
    if store.local_path(path) is not None:
        return found
    for _ in range(_TRIES):
        before, found = found, store.read(path)
        if found == before:
            return found
    raise StoreError(
        f"{store.url}/{path}: {_TRIES} replies in a row differ",
        hint="something between here and the storage changes bytes; run the same command again, or on another network",
    )
