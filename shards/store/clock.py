"""The time by a store's own clock, which is what the times of its objects go by."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress

from shards.errors import StoreError
from shards.store.base import HIDDEN, Store

__all__ = ["store_time"]


def store_time(store: Store, folder: str) -> float:
    """The store's time, found by writing an object of a few bytes and removing it.

    Ages of objects are told by it: a machine whose clock is days ahead must not take for old what others write now.

    Args:
        store: The store.
        folder: Where the object lies for a moment.

    Returns:
        Seconds since 1970; this machine's time where the store tells none.

    Raises:
        StoreError: The store cannot be written.
    """
    probe = f"{folder}/{HIDDEN}clock-{secrets.token_hex(8)}"
    store.put_if_absent(probe, b"{}")
    try:
        return store.stat(probe).modified or time.time()
    finally:
        with suppress(StoreError):  # it is hidden, and a vacuum removes it
            store.delete([probe])
