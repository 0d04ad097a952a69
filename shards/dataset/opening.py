"""A Delta table opened: its log is compared with what the storage has, and a damaged reply is asked for again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shards.dataset.log_questions import DOUBTS, damage_of
from shards.dataset.query import ask_tables
from shards.dataset.table_files import require_inside
from shards.dataset.table_log import require_filled, require_newest, require_readable
from shards.dataset.withdrawals import RELOCK, withdrawals_of
from shards.errors import SampleIndexError
from shards.store import storage_options
from shards.store.driver import DriverError

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from shards.dataset.dataset import Dataset

_NO_VERSION: Final = "LogSegment end version"
"""What deltalake says of a version that a log does not reach."""


def open_table(dataset: Dataset, name: str, version: int | None = None) -> DeltaTable | None:
    """See `Dataset.table`."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    options = storage_options(dataset.url)
    remote = bool(options)
    doubts = iter(range(DOUBTS if remote else 0))

    def opened() -> DeltaTable:
        try:
            table = DeltaTable(dataset.table_url(name), version=version, storage_options=options)
        except TableNotFoundError:
            if remote:
                require_newest(dataset.store, name, -1)
            raise
        except DeltaError as error:
            may_be_there = version is None or _NO_VERSION not in str(error)
            if may_be_there and next(doubts, None) is not None:  # a reply may be damaged, and not the log
                raise DriverError("transient", str(error).splitlines()[0]) from error
            if remote and may_be_there:
                require_readable(dataset.store, name)
            raise
        if remote and version is None:
            require_newest(dataset.store, name, int(table.version()))
        require_filled(dataset.store, name, int(table.version()))
        require_inside(table, f"{dataset.url}/{name}")
        return table

    try:
        return ask_tables(dataset.url, opened)
    except TableNotFoundError:
        if version is None:
            return None
        raise SampleIndexError(f"{dataset.url} has no {name}/ table yet", hint="ingest something first") from None
    except (DeltaError, OverflowError) as error:  # no version has a negative number, or one of more than 64 bits
        if version is not None:
            _require_reached(dataset, name, version, error)
        which = "the log" if version is None else f"version {version}"
        hint = "run `biovfm verify` on the dataset; bring the log back from a copy"
        if version is not None:
            hint = "`biovfm stats` shows the newest version; a vacuum may have removed this one"
        text = str(error).splitlines()[0]
        if found := damage_of(dataset.store, name, error):
            raise found from error
        if version is not None and name == "index" and (withdrawals := withdrawals_of(dataset)) is not None:
            raise SampleIndexError(
                f"{dataset.url}: version {version} is gone; {withdrawals} and purged", hint=RELOCK
            ) from error
        raise SampleIndexError(f"{dataset.url}: {which} of {name}/ cannot be read ({text})", hint=hint) from error


def _require_reached(dataset: Dataset, name: str, version: int, error: Exception) -> None:
    """Tell a version that no table has had yet from one that is gone.

    Raises:
        SampleIndexError: No table has had it yet, or the log is damaged.
        StoreError: The storage failed.
    """
    table = open_table(dataset, name)
    newest = -1 if table is None else int(table.version())
    if 0 <= version <= newest:
        return
    what = "no version" if name == "index" else f"no version of {name}/ with the number"
    raise SampleIndexError(
        f"{dataset.url} has {what} {version}; the newest is {newest}",
        hint="`biovfm stats DATASET --history` shows the versions",
    ) from error
