"""The store seam: one small interface over local disk, object storage and memory."""

from __future__ import annotations

from shards.store.base import ObjectInfo, Store, join_url
from shards.store.local import LocalStore
from shards.store.memory import MemoryStore

__all__ = ["LocalStore", "MemoryStore", "ObjectInfo", "Store", "join_url", "open_store"]


def open_store(url: str) -> Store:
    """The store that serves `url` (a folder path, `file://`, `s3://`, `gs://`, `az://` or any fsspec URL).

    Raises:
        StoreError: No driver for the scheme.
    """
    from shards.errors import StoreError

    scheme, separator, _ = url.partition("://")
    if not separator or scheme == "file":
        return LocalStore(url.removeprefix("file://"))
    raise StoreError(f"no storage driver for {scheme}:// ({url})", hint="use a local path")
