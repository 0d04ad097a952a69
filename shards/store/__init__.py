"""The store seam: one small interface over local disk, object storage and memory."""

from __future__ import annotations

from shards.store.base import ObjectInfo, Store, join_url
from shards.store.commits import commit_once
from shards.store.local import LocalStore
from shards.store.memory import MemoryStore
from shards.store.options import (
    S3Options,
    duckdb_secret,
    fsspec_options,
    redact,
    register_with_duckdb,
    storage_options,
)
from shards.store.settings import MIB, StoreSettings

__all__ = [
    "MIB",
    "LocalStore",
    "MemoryStore",
    "ObjectInfo",
    "S3Options",
    "Store",
    "StoreSettings",
    "commit_once",
    "duckdb_secret",
    "fsspec_options",
    "join_url",
    "open_store",
    "redact",
    "register_with_duckdb",
    "storage_options",
]


def open_store(url: str, settings: StoreSettings | None = None) -> Store:
    """The store that serves `url`. Connects only when it is first used.

    A folder path and `file://` are local disk; `s3://`, `gs://`, `az://`, `abfs://` and `http(s)://` go through
    obstore; every other URL, and these too with `BIOVFM_STORE=fsspec`, through fsspec.

    Args:
        url: Path or URL of a folder.
        settings: Sizes, time limits and retries; from the environment by default.

    Raises:
        StoreError: No driver for the scheme.
        ConfigError: A setting in the environment is wrong.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or (scheme == "file" and "::" not in url):
        return LocalStore(rest if separator else url)
    from shards.store.opening import open_remote

    return open_remote(url, settings or StoreSettings.from_environment())
