"""Which client library serves a URL."""

from __future__ import annotations

from shards.errors import StoreError
from shards.store.options import redact
from shards.store.remote import RemoteStore
from shards.store.settings import StoreSettings


def open_remote(url: str, settings: StoreSettings) -> RemoteStore:
    """The store of a URL that is not a local folder.

    Raises:
        StoreError: No driver for the scheme.
    """
    from shards.store.obstore_driver import SCHEMES, ObstoreDriver

    scheme = url.partition("://")[0].lower()
    spoken = scheme in SCHEMES and "::" not in url
    if settings.driver == "obstore" and not spoken:
        raise StoreError(f"obstore does not speak {scheme}:// ({redact(url)})", hint="set BIOVFM_STORE=auto")
    if spoken and settings.driver != "fsspec":
        return RemoteStore(url, ObstoreDriver(url, settings), settings)
    from fsspec.registry import get_filesystem_class

    from shards.store.fsspec_driver import FsspecDriver

    try:
        get_filesystem_class(scheme)
    except (ValueError, ImportError) as error:
        raise StoreError(
            f"no storage driver for {scheme}:// ({redact(url)})", hint="install the package that speaks it"
        ) from error
    return RemoteStore(url, FsspecDriver(url, settings), settings)
