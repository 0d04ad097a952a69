"""The log of a Delta table on object storage, held against what the storage says and against what was sent.

A listing that is not one (the login page of a network, with status 200) reads as an empty one, and deltalake takes the
word of the storage for a write. So the version after the newest is asked for by its name, and a commit is read back.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shards.dataset.replace import JOB
from shards.dataset.table_files import add_files
from shards.errors import NotFoundError, SampleIndexError
from shards.files import parse_json
from shards.store import ObjectInfo, Store
from shards.store.driver import DriverError
from shards.store.settled import read_settled

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import CommitProperties
    from deltalake.transaction import AddAction

_DIGITS: Final = 20
_ENTRY: Final = re.compile(r"\d{20}\.json")
_CHECKPOINT: Final = re.compile(r"\d{20}\.checkpoint.*\.parquet")
_JOB_MARK: Final = f'"{JOB}":'.encode()
_TRANSACTION: Final = b'{"txn":'
_VOLATILE = {
    "commitInfo": ("timestamp", "operationParameters/location", "operationParameters/metadata"),
    "metaData": ("id", "createdTime"),
}
"""What two entries of one commit differ in."""


def entry_path(folder: str, version: int) -> str:
    """Path of the log's entry of a version."""
    return f"{folder}/_delta_log/{version:020d}.json"


def require_newest(store: Store, folder: str, version: int) -> None:
    """Check that the log ends where its listing said.

    Args:
        store: The dataset.
        folder: The table's folder.
        version: The newest version by the listing; -1 where there seemed to be no table.

    Raises:
        DriverError: It goes on; to be asked again.
        StoreError: The storage failed.
    """
    later = [entry_path(folder, version + 1)]
    if version < 0:
        later.append(f"{folder}/_delta_log/_last_checkpoint")  # entries before a checkpoint may have been removed
    for path in later:
        if _is_there(store, path):
            raise DriverError("transient", f"the listing of {folder}/_delta_log/ left out {path}")


def entry_of(
    schema: pa.Schema,
    actions: Sequence[AddAction],
    *,
    partition_by: Sequence[str],
    properties: CommitProperties,
    is_new: bool,
) -> bytes:
    """The log's entry of a commit, made by the same commit to a table in a temporary folder.

    Args:
        schema: Columns of the table.
        actions: The files that are added.
        partition_by: The table's partition columns.
        properties: The commit's own words and transactions.
        is_new: Whether the commit makes the table.
    """
    from deltalake import CommitProperties, DeltaTable

    with tempfile.TemporaryDirectory(prefix="biovfm-") as folder:
        commit = partial(add_files, url=folder, schema=schema, partition_by=partition_by, storage_options={})
        if not is_new:
            commit(None, actions=[], properties=CommitProperties())
        commit(None if is_new else DeltaTable(folder), actions=actions, properties=properties)
        return Path(folder, entry_path(".", 0 if is_new else 1)).read_bytes()


def is_committed(store: Store, folder: str, *, after: int, sent: bytes, marks: Sequence[str]) -> bool:
    """Whether a commit is in the log as it was sent; a damaged entry that nothing follows is removed.

    Args:
        store: The dataset.
        folder: The table's folder.
        after: The newest version before the commit; -1 where there was no table.
        sent: The entry that was to be written (see `entry_of`).
        marks: Texts that stand in an entry of this commit and in no other: its job, its files.

    Raises:
        DriverError: It was damaged; to be committed again.
        SampleIndexError: It is damaged, and other versions follow it.
        StoreError: The storage failed.
    """
    wanted = _settled(sent)
    damaged = -1
    for version, text in _entries(store, folder, after + 1):
        if _settled(text) == wanted:
            return True
        if any(mark in text.decode(errors="replace") for mark in marks):
            damaged = version
    if damaged < 0:
        return False
    path = entry_path(folder, damaged)
    if _is_there(store, entry_path(folder, damaged + 1)):
        raise SampleIndexError(
            f"{path} is not what was written", hint="the storage changed it; bring the log back from a copy"
        )
    store.delete([path])
    raise DriverError("transient", f"the storage held other bytes than were sent: {path}")


def require_filled(store: Store, folder: str, version: int) -> None:
    """Check that no entry of the log is empty, which is how a crash of the machine leaves files that were just written.

    An empty entry reads as a commit that changes nothing: the samples of its job would be gone without a word.

    Args:
        store: The dataset.
        folder: The table's folder.
        version: The version that was opened.

    Raises:
        SampleIndexError: An entry that this version is made of is empty.
        StoreError: The storage failed.
    """
    empty = [info.path for info in _needed(store, folder, version) if not info.size]
    if empty:
        raise SampleIndexError(
            f"{store.url}/{empty[0]} is empty, so what its job added is unknown",
            hint="bring the file back from a copy; where none is, remove it if it is the newest, and ingest again",
        )


def cut_entries(store: Store, folder: str, version: int) -> Iterator[str]:
    """Entries of our commits that lack their transaction, which is their last line: cut off at the end of a line.

    What is left of such an entry reads well, and the files of the lost lines would be gone without a word.

    Args:
        store: The dataset.
        folder: The table's folder.
        version: The version that was opened.

    Raises:
        StoreError: The storage failed.
    """
    for info in _needed(store, folder, version):
        text = store.read(info.path)
        if _JOB_MARK in text and _TRANSACTION not in text:
            yield info.path


def _needed(store: Store, folder: str, version: int) -> list[ObjectInfo]:
    """The entries that a version is made of: those after its newest checkpoint."""
    entries, checkpoint = [], -1
    for info in store.list(f"{folder}/_delta_log/"):
        name = info.path.rpartition("/")[2]
        if _CHECKPOINT.fullmatch(name) and int(name[:_DIGITS]) <= version:
            checkpoint = max(checkpoint, int(name[:_DIGITS]))
        if _ENTRY.fullmatch(name) and int(name[:_DIGITS]) <= version:
            entries.append(info)
    return [info for info in entries if int(info.path.rpartition("/")[2][:_DIGITS]) > checkpoint]


def damaged_entry(store: Store, folder: str) -> str:
    """The first entry of the log that is not lines of JSON objects; empty where all are.

    Raises:
        StoreError: The storage failed, or its replies are not the entries.
    """
    for info in store.list(f"{folder}/_delta_log/"):
        if _ENTRY.fullmatch(info.path.rpartition("/")[2]):
            try:
                actions = [parse_json(line) for line in read_settled(store, info.path).splitlines()]
            except (ValueError, NotFoundError):
                return info.path
            if not actions or not all(isinstance(action, dict) for action in actions):
                return info.path
    return ""


def require_readable(store: Store, folder: str) -> None:
    """Read the log's entries, to tell a storage that fails from a log that is damaged.

    Raises:
        StoreError: The storage failed.
    """
    for info in store.list(f"{folder}/_delta_log/"):
        if info.path.endswith(".json"):
            store.read(info.path)


def _entries(store: Store, folder: str, first: int) -> Iterator[tuple[int, bytes]]:
    version = first
    while True:
        try:
            yield version, store.read(entry_path(folder, version))
        except NotFoundError:
            return
        version += 1


def _settled(text: bytes) -> list[dict[str, Any]] | None:
    """The actions of an entry without what differs each time it is written; None where it is no JSON."""
    try:
        actions: list[dict[str, Any]] = [json.loads(line) for line in text.decode().splitlines()]
        for action in actions:
            for kind, names in _VOLATILE.items():
                for path in names if kind in action else ():
                    _blank(action[kind], path)
    except (ValueError, AttributeError, TypeError):
        return None
    return actions


def _blank(found: dict[str, Any], path: str) -> None:
    *folders, name = path.split("/")
    for folder in folders:
        found = found.get(folder, {})
    if name in found:
        found[name] = type(found[name]).__name__


def _is_there(store: Store, path: str) -> bool:
    try:
        store.stat(path)
    except NotFoundError:
        return False
    return True
