"""Questions that make deltalake read a table's log again: a damaged reply is told from a damaged log.

An open table holds its files, and little else. Its history, its transactions, what a vacuum would remove, a checkpoint
and every commit read the log anew, without a checksum.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from shards.dataset.query import ask_tables
from shards.dataset.table_log import damaged_entry, require_readable
from shards.errors import SampleIndexError, StoreError
from shards.store import Store
from shards.store.calls import HINTS
from shards.store.driver import DriverError

__all__ = ["DOUBTS", "ask_log", "damage_of", "is_damaged_reply"]

Result = TypeVar("Result")

DOUBTS: Final = 2
"""How often a log on object storage that cannot be parsed is read again."""
_UNREADABLE: Final = ("Kernel error", "Json error", "Parquet error", "nvalid JSON")
"""What deltalake says where the log, or what came of it, cannot be parsed."""


def ask_log(store: Store, folder: str, question: Callable[[], Result]) -> Result:
    """Ask what reads the log of a table, and again where the storage failed or a reply cannot be parsed.

    Args:
        store: The dataset.
        folder: The table's folder.
        question: What to ask; may be called several times, also where it has committed something.

    Raises:
        SampleIndexError: The log is damaged.
        StoreError: The storage failed, or its replies are damaged.
        DeltaError: deltalake's, of everything else.
    """
    from deltalake.exceptions import DeltaError

    remote = "://" in store.url
    doubts = iter(range(DOUBTS if remote else 0))

    def once() -> Result:
        try:
            return question()
        except DeltaError as error:
            if not _is_unreadable(error):
                raise
            if next(doubts, None) is not None:
                raise DriverError("transient", _first_line(error)) from error
            if remote:
                require_readable(store, folder)
            raise

    try:
        return ask_tables(store.url, once)
    except DeltaError as error:
        if not _is_unreadable(error):
            raise
        found = damage_of(store, folder, error)
        raise found or SampleIndexError(
            f"{store.url}: the log of {folder}/ cannot be read ({_first_line(error)})",
            hint="run `biovfm verify` on the dataset; bring the log back from a copy",
        ) from error


def damage_of(store: Store, folder: str, error: Exception) -> SampleIndexError | StoreError | None:
    """What is damaged where deltalake cannot parse a log: an entry of it, or the replies; None where that is unknown.

    Raises:
        StoreError: The storage failed.
    """
    text = _first_line(error)
    if entry := damaged_entry(store, folder):
        return SampleIndexError(f"{store.url}/{entry} is damaged ({text})", hint="bring the file back from a copy")
    if "://" in store.url and "Json error" in text:  # the entries are whole when they are read one by one
        return StoreError(f"{store.url}: the log of {folder}/ came damaged ({text})", hint=HINTS["transient"])
    return None


def is_damaged_reply(store: Store, error: Exception) -> bool:
    """Whether deltalake could not parse what came from object storage, where another reply may be whole."""
    return "://" in store.url and _is_unreadable(error)


def _is_unreadable(error: Exception) -> bool:
    return any(word in str(error) for word in _UNREADABLE)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
