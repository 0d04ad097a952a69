"""The bytes of withdrawn samples taken out of older versions and of the store.

After it the index begins with the version that the last withdrawal made; later ones stay, with their locks and streams.
All that only older versions need goes: shards, table files, entries and checkpoints of the logs
(`shards.dataset.forget`). So does what jobs that died have left: staging folders, and objects that no version names.

What a running job has written and not committed yet looks like what a dead one has left. So leftovers go only when they
are a day old, or as old as the grace, if that is shorter: with a grace of nothing, no job may run on the dataset.

A purge that was killed is done again from the start: each step finds what is left to do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import SecretStr

from ingest.job.secret_check import require_secret
from ingest.job.unname import unname
from ingest.privacy.tombstones import Marker
from ingest.withdrawal.withdraw import complete
from shards.dataset.columns import FOLDER
from shards.dataset.dataset import Dataset
from shards.dataset.forget import Past, first_version, forget_log, is_of_log, make_first, past_of, table_folders
from shards.dataset.pins import drop_pins
from shards.errors import NotFoundError, SampleIndexError
from shards.store.base import ObjectInfo

LEFTOVER_SECONDS: Final = 86_400.0
"""Age at which what no version names cannot belong to a job that still runs."""
_KEPT_WHOLE: Final = ("withdrawn",)
"""Tables of which nothing was ever taken away."""
_INDEX: Final = "index"
_PINNED: Final = (_INDEX, FOLDER)
"""Tables whose versions locks pin: those from the withdrawal on stay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a purge did.

    Attributes:
        names: Withdrawals whose bytes are gone.
        waiting: Withdrawal → when its grace ends, UTC as ISO 8601.
        first_version: Index version before which nothing can be read any more; -1 where nothing was due.
        num_objects: Objects that were deleted.
        num_bytes: Their size.
        num_entries: Entries of the logs that lost what they said.
        young: Objects that no version names and that may belong to a job that runs: they stay.
    """

    names: tuple[str, ...]
    waiting: Mapping[str, str]
    first_version: int = -1
    num_objects: int = 0
    num_bytes: int = 0
    num_entries: int = 0
    young: tuple[str, ...] = ()


def purge(
    dataset: Dataset,
    secret: SecretStr,
    *,
    grace: timedelta,
    now: datetime | None = None,
    progress: Callable[[str], None] | None = None,
    dry_run: bool = False,
) -> Purged:
    """Take away what withdrawn samples have left, for the withdrawals whose grace has ended.

    Args:
        dataset: The dataset.
        secret: Its secret; completes withdrawals that were interrupted.
        grace: How long after a withdrawal its bytes stay.
        now: The time; that of the machine without it.
        progress: Called with a line as each step begins.
        dry_run: Say what would go, and change nothing.

    Raises:
        ConfigError: The secret is missing, or another one.
        StoreError: The storage failed.
    """
    tell = progress or (lambda _line: None)
    require_secret(dataset, secret)
    if not dry_run:
        complete(dataset, Marker(secret), tell)
    moment = now or datetime.now(UTC)
    due, waiting = _due(dataset, moment - grace)
    waiting = {name: (datetime.fromisoformat(at) + grace).isoformat(timespec="seconds") for name, at in waiting.items()}
    if not due:
        return Purged(names=(), waiting=waiting)
    age = min(grace.total_seconds(), LEFTOVER_SECONDS)
    before = moment.timestamp() - age if age > 0 else math.inf  # clocks of stores differ
    run = _Run(dataset, before=before, dry_run=dry_run)
    if not dry_run:
        unname(dataset, due)
    pasts = {name: past for name in table_folders(dataset) if (past := _past(dataset, name, due)) is not None}
    for past in pasts.values():
        tell(f"{past.name}: version {past.version} becomes the first one")
        if not dry_run:
            make_first(dataset, past)
    tell("shards")
    run.shards(pasts.get(_INDEX))
    for name, past in pasts.items():
        tell(f"{name}: files of older versions")
        run.files(past)
    entries = 0
    if not dry_run:
        tell("logs")
        entries = sum(forget_log(dataset, past) for past in pasts.values())
        if _INDEX in pasts:
            drop_pins(dataset, range(pasts[_INDEX].version))
    tell("leftovers of jobs")
    run.staging()
    first = pasts[_INDEX].version if _INDEX in pasts else -1
    return Purged(
        names=tuple(due),
        waiting=waiting,
        first_version=first,
        num_objects=run.num_objects,
        num_bytes=run.num_bytes,
        num_entries=entries,
        young=tuple(run.young),
    )


def _due(dataset: Dataset, latest: datetime) -> tuple[list[str], dict[str, str]]:
    """The withdrawals up to a moment, and those after it with their times."""
    sql = "SELECT withdrawal, max(withdrawn_at) AS at FROM withdrawn GROUP BY 1 ORDER BY 2, 1"
    rows = dataset.query(sql).to_pylist()
    due = [row["withdrawal"] for row in rows if datetime.fromisoformat(row["at"]) <= latest]
    return due, {row["withdrawal"]: row["at"] for row in rows if row["withdrawal"] not in set(due)}


def _past(dataset: Dataset, name: str, due: Sequence[str]) -> Past | None:
    """What goes of a table; None where nothing does."""
    if name in _KEPT_WHOLE:
        return None
    table = dataset.table(name)
    if table is None:
        return None
    version = first_version(dataset, name, due) if name in _PINNED else None
    if name == _INDEX and version is None:  # the withdrawals took rejects alone
        return None
    newest = int(table.version())
    try:
        return past_of(dataset, name, newest if version is None else version)
    except SampleIndexError:  # the log was shortened by a checkpoint since
        return past_of(dataset, name, newest)


class _Run:
    """Deletes, and counts what it deletes.

    Args:
        dataset: The dataset.
        before: What no version names goes if it was written before this time (seconds since 1970).
        dry_run: Count only.
    """

    def __init__(self, dataset: Dataset, *, before: float, dry_run: bool) -> None:
        self._dataset = dataset
        self._before = before
        self._dry_run = dry_run
        self._jobs = _jobs_at_work(dataset, before)
        self.num_objects = 0
        self.num_bytes = 0
        self.young: list[str] = []

    def shards(self, past: Past | None) -> None:
        """Delete the shards that no version names that stays."""
        if past is None:
            return
        live = _shards_of(self._dataset, past.live)
        old = _shards_of(self._dataset, past.old) - live
        promoted = set(_promoted(self._dataset, self._jobs))
        for info in self._list("shards/"):
            if info.path in old:
                self._delete(info)
            elif info.path not in live:
                self._delete_leftover(info, in_use=info.path in promoted)

    def files(self, past: Past) -> None:
        """Delete the data files of a table that no version names that stays."""
        for info in self._list(f"{past.name}/"):
            path = info.path.removeprefix(f"{past.name}/")
            if path.startswith("_delta_log/"):
                if not is_of_log(path):  # what a writer that died had begun
                    self._delete_leftover(info)
            elif path in past.old:
                self._delete(info)
            elif path not in past.live:
                self._delete_leftover(info, in_use=any(f"part-{job}-" in path for job in self._jobs))

    def staging(self) -> None:
        """Delete the staging folders of jobs that are not at work."""
        for info in self._list("staging/"):
            self._delete_leftover(info, in_use=info.path.split("/")[1] in self._jobs)

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from list(self._dataset.store.list(prefix, hidden=True))

    def _delete_leftover(self, info: ObjectInfo, *, in_use: bool = False) -> None:
        if in_use or info.modified > self._before:
            self.young.append(info.path)
        else:
            self._delete(info)

    def _delete(self, info: ObjectInfo) -> None:
        if not self._dry_run:
            self._dataset.store.delete([info.path])
        self.num_objects += 1
        self.num_bytes += info.size


def _jobs_at_work(dataset: Dataset, before: float) -> set[str]:
    """Jobs that have staged something since a time."""
    return {info.path.split("/")[1] for info in dataset.store.list("staging/", hidden=True) if info.modified > before}


def _promoted(dataset: Dataset, jobs: set[str]) -> Iterator[str]:
    """The final names that jobs at work have used."""
    for job in jobs:
        prefix = f"staging/{job}/promoted/"
        yield from (info.path.removeprefix(prefix) for info in dataset.store.list(prefix))


def _shards_of(dataset: Dataset, files: frozenset[str]) -> set[str]:
    """The shards that data files of the index name; a file that is gone already names none."""
    found: set[str] = set()
    for path in sorted(files):
        with suppress(NotFoundError):
            source = pa.BufferReader(dataset.store.read(f"{_INDEX}/{path}"))
            with pq.ParquetFile(source) as file:
                for batch in file.iter_batches(columns=["shard"]):
                    found.update(pc.unique(batch["shard"]).to_pylist())
    return found
