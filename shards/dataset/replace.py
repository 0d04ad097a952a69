"""Files of a Delta table replaced by others, in one commit that counts for the version that it was made for.

deltalake's own rewriting holds whole files in memory, writes other types of text, and cannot take files away and add
others in one commit. A commit is one JSON file of the log, which appears whole or not at all by the store's conditional
put: the same step by which deltalake commits, so both kinds of writer may meet. Who comes second reads the table again
and plans anew, since the files that it wanted to replace may be gone.

Protocol: https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from shards.dataset.table_files import add_actions, partition_of
from shards.errors import AlreadyExistsError, StoreError

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

    from shards.dataset.dataset import Dataset
    from shards.store import Store

JOB: Final = "biovfm.job"
"""Where a commit keeps the name of its job."""
SUMMARY: Final = "biovfm.summary"
"""Where a commit keeps the counts of its job, as JSON."""
_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 5.0
_CHECKPOINT_COMMITS: Final = 100
_jitter = random.Random()  # noqa: S311 - spreads writers, protects nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one commit does to the files of a table.

    Attributes:
        gone: Paths of the files that leave, as the log names them.
        added: The files that come, already in place.
        counts: What to say of it in the commit's summary.
    """

    gone: Sequence[str] = ()
    added: Sequence[AddAction] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


def replace_files(
    dataset: Dataset,
    name: str,
    plan: Callable[[DeltaTable], Change | None],
    *,
    transaction: str,
    summary: Mapping[str, Any] | None = None,
    operation: str = "DELETE",
    rows_change: bool = True,
) -> int:
    """Replace files of a table, once for each transaction.

    Args:
        dataset: The dataset.
        name: Folder of the table.
        plan: What to do with the table as it is, or None where that is nothing; asked again where somebody else has
            committed meanwhile.
        transaction: What a repeated call is known by; also the name of the job in the history of the index.
        summary: Kept in the commit, as that of a job.
        operation: What the history calls it.
        rows_change: Whether the table's rows are others afterwards; else only their files are.

    Returns:
        The table's version afterwards; -1 where there is no table.

    Raises:
        StoreError: Others commit all the time, or the storage failed.
    """
    for attempt in range(_TRIES):
        table = dataset.table(name)
        if table is None:
            return -1
        version = int(table.version())
        if dataset.has_transaction(name, table, transaction):
            return version
        change = plan(table)
        if change is None:
            return version
        entry = _entry(table, change, transaction, summary or {}, operation, rows_change=rows_change)
        if not _put(dataset.store, f"{name}/_delta_log/{version + 1:020d}.json", entry):
            time.sleep(min(_PAUSE_SECONDS * 2**attempt, _MAX_PAUSE_SECONDS) * _jitter.uniform(0.5, 1.0))
            continue
        if (version + 1) % _CHECKPOINT_COMMITS == 0:
            table = dataset.table(name)
            assert table is not None
            dataset.ask_log(name, table.create_checkpoint)
        return version + 1
    raise StoreError(f"{dataset.url}/{name}: others commit all the time", hint="run the same command again")


def _put(store: Store, path: str, entry: bytes) -> bool:
    """Put an entry of the log and read it back; not where the name is taken or other bytes came to lie there."""
    try:
        store.put_if_absent(path, entry)
    except AlreadyExistsError:  # somebody else's, or our own whose reply was lost
        return False
    if store.local_path(path) is None and store.read(path) != entry:
        store.delete([path])
        return False
    return True


def _entry(
    table: DeltaTable,
    change: Change,
    transaction: str,
    summary: Mapping[str, Any],
    operation: str,
    *,
    rows_change: bool,
) -> bytes:
    """The commit as the log's text: a JSON object per line."""
    now = int(time.time() * 1000)
    info = {
        "timestamp": now,
        "operation": operation,
        "operationParameters": {},
        "engineInfo": "biovfm",
        JOB: transaction,
        SUMMARY: json.dumps({**summary, **change.counts}, sort_keys=True),
    }
    lines: list[dict[str, Any]] = [{"commitInfo": info}]
    known = {action["path"]: action for action in add_actions(table)}
    lines += [{"remove": _removal(known[path], now, rows_change=rows_change)} for path in change.gone]
    lines += [{"add": _addition(action, rows_change=rows_change)} for action in change.added]
    lines.append({"txn": {"appId": transaction, "version": 1, "lastUpdated": now}})
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()


def _removal(action: Mapping[str, Any], now: int, *, rows_change: bool) -> dict[str, Any]:
    return {
        "path": action["path"],
        "deletionTimestamp": now,
        "dataChange": rows_change,
        "extendedFileMetadata": True,
        "partitionValues": partition_of(action),
        "size": action["size_bytes"],
    }


def _addition(action: AddAction, *, rows_change: bool) -> dict[str, Any]:
    return {
        "path": action.path,
        "partitionValues": dict(action.partition_values),
        "size": action.size,
        "modificationTime": action.modification_time,
        "dataChange": rows_change,
        "stats": action.stats,
    }
