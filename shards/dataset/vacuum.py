"""Removes what no kept version of a dataset needs: table files, shards and leftovers of jobs that died.

Kept are the newest version, every version that was the newest at some time within the retention age, and those that
locks pin: recorded pins (`shards.dataset.pins`) and locks that are given. An older version that is not kept can no
longer be read; a lock of it is still found where a kept version holds the same samples (`shards.subset.finding`).

The log of the tables stays whole, so versions keep their numbers. Only deletions happen, in an order that a kill cannot
break: what a version needs goes only where that version is not kept, and a repeated call deletes the rest.

Memory: the names of the shards.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shards.dataset.pins import pins_of
from shards.dataset.rewrite import read_rows
from shards.dataset.table_files import add_actions
from shards.errors import SampleIndexError
from shards.store.base import ObjectInfo, is_hidden
from shards.store.clock import store_time

if TYPE_CHECKING:
    from shards.dataset.dataset import Dataset

TABLES: Final = ("index", "fingerprints", "rejects", "raw_files")
"""The tables whose old files a vacuum removes."""
_LOG: Final = "/_delta_log/"
_DAY_SECONDS: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacuumed:
    """What a vacuum did, or would do.

    Attributes:
        kept: Versions of the index that are kept.
        pinned: Those of them that a lock pins.
        dropped: Versions that can no longer be read as a whole.
        paths: Objects that were removed.
        num_bytes: Their size.
    """

    kept: Sequence[int]
    pinned: Sequence[int]
    dropped: Sequence[int]
    paths: Sequence[str]
    num_bytes: int


def vacuum(
    dataset: Dataset,
    *,
    keep_days: float = 30.0,
    orphan_hours: float = 24.0,
    locked: Collection[int] = (),
    dry_run: bool = False,
) -> Vacuumed:
    """Remove what no kept version needs.

    Args:
        dataset: The dataset.
        keep_days: Versions that were the newest at some time within so many days are kept.
        orphan_hours: Objects that no version names are kept while they are younger: a job may be about to name them.
            What a job has staged is kept as a whole while any of it is younger.
        locked: More versions to keep.
        dry_run: Only say what would go.

    Raises:
        SampleIndexError: A kept version cannot be read.
    """
    now = time.time() if dry_run else min(time.time(), store_time(dataset.store, "staging"))
    table = dataset.table("index")
    newest = -1 if table is None else int(table.version())
    pinned = sorted({version for version in (*locked, *(pin.version for pin in pins_of(dataset))) if version <= newest})
    kept = sorted(
        {*_recent(dataset, "index", now - keep_days * _DAY_SECONDS), *(version for version in pinned if version >= 0)}
    )
    kept, pinned = _readable(dataset, kept, newest), [version for version in pinned if version >= 0]
    needed = set(_needed(dataset, "index", kept, shards=True))
    for name in TABLES[1:]:
        needed |= set(_needed(dataset, name, _recent(dataset, name, now - keep_days * _DAY_SECONDS), shards=False))
    oldest = now - 3600 * orphan_hours
    objects = list(_objects(dataset))
    needed |= set(_of_live_jobs(objects, oldest))
    gone = [info for info in objects if info.path not in needed and _is_old(info, oldest)]
    if not dry_run:
        dataset.store.delete([info.path for info in gone])
    return Vacuumed(
        kept=kept,
        pinned=[version for version in pinned if version in kept],
        dropped=sorted(set(range(newest + 1)) - set(kept) - set(_whole(dataset, needed, newest, kept))),
        paths=[info.path for info in gone],
        num_bytes=sum(info.size for info in gone),
    )


def _recent(dataset: Dataset, name: str, since: float) -> list[int]:
    """The versions of a table that were its newest at some time after a moment in seconds since 1970."""
    commits = sorted((int(entry["version"]), float(entry["timestamp"])) for entry in dataset.commits(name))
    if not commits:
        return []
    ends = [at for _, at in commits[1:]] + [float("inf")]
    recent = [version for (version, _), end in zip(commits, ends, strict=True) if end >= 1000 * since]
    return [version for version in recent if _opens(dataset, name, version)]


def _opens(dataset: Dataset, name: str, version: int) -> bool:
    """Whether the log still knows a version; a purge takes those away that held withdrawn samples."""
    try:
        return dataset.table(name, version=version) is not None
    except SampleIndexError:
        return False


def _readable(dataset: Dataset, versions: Sequence[int], newest: int) -> list[int]:
    """Those of some versions whose files are there; an earlier vacuum may have dropped one before it was pinned again.

    Raises:
        SampleIndexError: The newest is not readable.
    """
    there = {info.path for info in dataset.store.list("index/")}
    found = []
    for version in (version for version in versions if _opens(dataset, "index", version)):
        missing = [path for path in _files(dataset, "index", version) if path not in there]
        if not missing:
            found.append(version)
        elif version == newest:
            raise SampleIndexError(
                f"{dataset.url} lacks {missing[0]}, which its newest version needs", hint="run `biovfm verify` on it"
            )
    return found


def _whole(dataset: Dataset, needed: set[str], newest: int, kept: Sequence[int]) -> Iterator[int]:
    """The versions that are not kept and lose nothing: all that they need, a kept one needs too."""
    for version in sorted(set(range(newest + 1)) - set(kept)):
        if _opens(dataset, "index", version) and set(_files(dataset, "index", version)) <= needed:
            yield version


def _needed(dataset: Dataset, name: str, versions: Sequence[int], *, shards: bool) -> Iterator[str]:
    """The files of some versions of a table, and the shards that these name."""
    import pyarrow.compute as pc

    seen: set[str] = set()
    for version in versions:
        table = dataset.table(name, version=version)
        for action in [] if table is None else add_actions(table):
            path = f"{name}/{action['path']}"
            if path in seen:
                continue
            seen.add(path)
            yield path
            if shards and table is not None:
                for batch in read_rows(dataset, table, name, action, ["shard"]):
                    yield from pc.unique(batch["shard"]).to_pylist()


def _files(dataset: Dataset, name: str, version: int) -> list[str]:
    table: Any = dataset.table(name, version=version)
    return [] if table is None else [f"{name}/{action['path']}" for action in add_actions(table)]


def _objects(dataset: Dataset) -> Iterator[ObjectInfo]:
    """Everything that may go: shards, what jobs staged, and table files; never the log of a table."""
    for folder in ("shards/", "staging/", *(f"{name}/" for name in TABLES)):
        for info in dataset.store.list(folder, hidden=True):
            if _LOG not in info.path or is_hidden(info.path):
                yield info


def _of_live_jobs(objects: Sequence[ObjectInfo], oldest: float) -> Iterator[str]:
    """What jobs that may still run have staged, and the shards that they have named."""
    staged: dict[str, list[ObjectInfo]] = {}
    for info in objects:
        if info.path.startswith("staging/"):
            staged.setdefault(info.path.split("/")[1], []).append(info)
    for job, infos in staged.items():
        if not all(_is_old(info, oldest) for info in infos):
            notes = f"staging/{job}/promoted/"
            for info in infos:
                yield info.path
                if info.path.startswith(notes):
                    yield info.path.removeprefix(notes)


def _is_old(info: ObjectInfo, oldest: float) -> bool:
    """Whether an object was written before a moment; what has no time counts as young."""
    return 0 < info.modified < oldest
