"""Is a dataset what its index says? Looks at everything, changes nothing.

The quick check compares the index with a listing: every table file and every shard is there and long enough, every
row of a shard has its place, no key stands twice, and what lies there without being in a table. The deep check reads
every table file (its SHA-256 against its name, what the log says of it) and every shard once: its SHA-256 against its
name, the structure of the tar, each image's place, CRC-32C and size against its index row, and each JSON against the
row. It costs one pass over the bytes; memory stays below one table file, one sample a thread and one shard's rows.
"""

from __future__ import annotations

import tarfile
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from shards.dataset.dataset import CONCEDED, Dataset
from shards.dataset.table_files import add_actions, hash_in_name
from shards.dataset.verify_shard import Problem, RawItem, Rows, check_shard
from shards.dataset.verify_table import check_table
from shards.errors import SampleIndexError
from shards.schema import INDEX_COLUMNS
from shards.store.base import HIDDEN, ObjectInfo
from shards.store.clock import store_time

if TYPE_CHECKING:
    import duckdb

TABLES = ("index", "fingerprints", "rejects")
_KEEPS_SHARDS = {"CREATE TABLE", "WRITE", "OPTIMIZE", "VACUUM START", "VACUUM END", "CREATE CHECKPOINT"}
_KEEPS_FILES = {"CREATE TABLE", "WRITE", "CREATE CHECKPOINT"}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """An object that no index row or table names: left by a job that died, or by one that has not committed yet.

    Attributes:
        path: Relative to the dataset.
        size: Bytes.
        age_seconds: Since it was written; 0 where the store does not say.
    """

    path: str
    size: int
    age_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome.

    Attributes:
        url: The dataset.
        version: Index version that was looked at; -1 where there is none.
        deep: Whether the shards were read.
        num_samples: Rows of the index.
        num_shards: Shards that the index names.
        num_bytes: Size of these shards in bytes.
        num_unhashed_files: Table files whose names carry no hash, so that only their structure was checked.
        problems: What is wrong.
        orphans: What lies there without being in the index; harmless.
        unfinished: Jobs whose raw files are noted and whose samples are not in the index: they were stopped before
            their end, or the newest version of the index is gone.
    """

    url: str
    version: int
    deep: bool
    num_samples: int
    num_shards: int
    num_bytes: int
    num_unhashed_files: int
    problems: tuple[Problem, ...]
    orphans: tuple[Orphan, ...]
    unfinished: tuple[str, ...] = ()


def verify(dataset: Dataset, *, deep: bool = False, threads: int = 4, progress: Progress | None = None) -> Report:
    """Compare a dataset's objects with its index.

    Args:
        dataset: The dataset.
        deep: Also read every shard.
        threads: Shards read side by side.
        progress: Told after each shard of the deep check: shards done, shards in all.

    Raises:
        StoreError: The storage cannot be listed or read at all.
    """
    problems = [problem for name in TABLES for problem in check_table(dataset, name, deep=deep)]
    table = None if problems else dataset.table("index")
    sizes = {info.path: info.size for info in dataset.store.list("shards/")}
    shards: dict[str, tuple[int, int]] = {}
    readable = not problems
    problems += [] if table is None else _unread(dataset)
    if table is not None and readable:
        try:
            shards = _check_shards(
                dataset, table.version(), sizes, problems, deep=deep, threads=threads, progress=progress
            )
        except SampleIndexError as error:  # a file that is whole by name and size, and still no table
            problems.append(Problem(kind="table", path="index/", detail=error.message))
    return Report(
        url=dataset.url,
        version=-1 if table is None else int(table.version()),
        deep=deep,
        num_samples=sum(rows for rows, _ in shards.values()),
        num_shards=len(shards),
        num_bytes=sum(sizes.get(shard, 0) for shard in shards),
        num_unhashed_files=_num_unhashed(dataset) if deep and readable else 0,
        problems=tuple(problems),
        orphans=tuple(_find_orphans(dataset, set(shards))) if readable else (),
        unfinished=_unfinished(dataset) if readable else (),
    )


def _check_shards(
    dataset: Dataset,
    version: int,
    sizes: Mapping[str, int],
    problems: list[Problem],
    *,
    deep: bool,
    threads: int,
    progress: Progress | None,
) -> dict[str, tuple[int, int]]:
    """Compare the shards with the rows of one index version; notes problems.

    Returns:
        Shard → (rows, bytes that its rows reach).
    """
    conceded = _conceded(dataset)
    with dataset.database("samples", version=version) as database:
        shards = _roll_up(database, problems, conceded)
        problems += _check_sizes(shards, sizes)
        if deep:
            broken = {problem.path for problem in problems if problem.kind in {"missing", "size"}}
            rows = (item for item in _rows_by_shard(database) if item[0] not in broken)
            tell = partial(_tell, progress, len(shards) - len(broken))
            check = partial(check_shard, dataset.store, conceded=conceded)
            problems += _read_all(check, rows, threads=threads, progress=tell)
    return shards


def remove_orphans(dataset: Dataset, orphans: Sequence[Orphan], *, older_than_seconds: float) -> Sequence[Orphan]:
    """Delete orphans that are old enough not to belong to a job that still runs.

    Data files of a table that was ever rewritten stay: an older version may need them, and a vacuum knows.

    Args:
        dataset: The dataset.
        orphans: What `verify` found.
        older_than_seconds: Younger ones stay, and those whose age is not known.

    Returns:
        Those that were deleted.

    Raises:
        SampleIndexError: The table's history holds operations that take rows away, so that an older version, which a
            lock may pin, could still need the objects.
    """
    operations = {name: _operations(dataset, name) for name in TABLES}
    if operations["index"] - _KEEPS_SHARDS:
        raise SampleIndexError(
            f"{dataset.url}: older versions may need these objects"
            f" (history holds {min(operations['index'] - _KEEPS_SHARDS)})",
            hint="`biovfm vacuum` removes what no kept version needs",
        )
    rewritten = tuple(f"{name}/" for name in TABLES if operations[name] - _KEEPS_FILES)
    ahead = max(time.time() - store_time(dataset.store, "staging"), 0.0)
    old = [
        orphan
        for orphan in orphans
        if orphan.age_seconds - ahead > older_than_seconds
        and (PurePosixPath(orphan.path).name.startswith(HIDDEN) or not orphan.path.startswith(rewritten))
    ]
    dataset.store.delete([orphan.path for orphan in old])
    return old


def _operations(dataset: Dataset, name: str) -> set[str]:
    return {str(entry.get("operation", "")) for entry in dataset.commits(name)}


def _num_unhashed(dataset: Dataset) -> int:
    tables = [table for name in TABLES if (table := dataset.table(name)) is not None]
    return sum(not hash_in_name(action["path"]) for table in tables for action in add_actions(table))


def _unread(dataset: Dataset) -> Iterator[Problem]:
    """Jobs that hold raw files as read and met no image in them.

    An earlier release left such a job where it was stopped between its two commits and run again.
    """
    import pyarrow as pa

    empty = [job["job_id"] for job in dataset.jobs() if job.get("items") == 0]
    sql = """SELECT job_id, any_value(source) AS source, count(*) AS num FROM raw_files
        WHERE state = 'read' AND job_id IN (SELECT job_id FROM ids) GROUP BY 1 ORDER BY 1"""
    found = dataset.query(sql, ids=pa.table({"job_id": pa.array(empty, pa.string())})).to_pylist() if empty else []
    for job in found:
        detail = f"job {job['job_id']} holds {job['num']} raw files of {job['source']} as read and none of their images"
        yield Problem(kind="unread", path="raw_files/", detail=detail)


def _unfinished(dataset: Dataset) -> tuple[str, ...]:
    """The jobs that are in the table of raw files and not in the index."""
    noted = dataset.query("SELECT DISTINCT job_id FROM raw_files ORDER BY 1")["job_id"].to_pylist()
    finished = set(dataset.committed(noted))
    return tuple(job for job in noted if job not in finished)


def _conceded(dataset: Dataset) -> frozenset[RawItem]:
    """The images that jobs have given up after their commit (see `CONCEDED`): no row names their bytes any more."""
    found = dataset.query("SELECT source, raw_path, raw_frame FROM rejects WHERE detail = ?", params=[CONCEDED])
    return frozenset(zip(*(column.to_pylist() for column in found.columns), strict=True))


def _roll_up(
    database: duckdb.DuckDBPyConnection, problems: list[Problem], conceded: Collection[RawItem]
) -> dict[str, tuple[int, int]]:
    """Shard → (rows, bytes that its rows reach); notes rows that cannot be."""
    given_up = Counter(source for source, _, _ in conceded)
    found = {}
    rows = database.sql(
        "SELECT shard, count(*), count(DISTINCT shard_row), min(shard_row), max(shard_row),"
        " max(byte_offset + byte_length) FROM samples GROUP BY shard ORDER BY shard"
    ).fetchall()
    for shard, count, distinct, first, last, end in rows:
        found[shard] = (int(count), int(end))
        gaps = last + 1 - count
        if distinct != count or first < 0 or gaps > given_up[_source_of(shard)]:
            detail = f"{count} rows, {distinct} different ones from {first} to {last}"
            problems.append(Problem(kind="rows", path=shard, detail=detail))
    twice = database.sql(
        "SELECT key, count(*) FROM samples GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 20"
    ).fetchall()
    problems += [Problem(kind="duplicate", path="index/", detail=f"key {key} stands {n} times") for key, n in twice]
    return found


def _source_of(shard: str) -> str:
    """The source that a shard's path names; empty where it is no such path."""
    return [*shard.split("/"), "", ""][1]


def _check_sizes(shards: Mapping[str, tuple[int, int]], sizes: Mapping[str, int]) -> Iterator[Problem]:
    for shard, (rows, end) in shards.items():
        if shard not in sizes:
            yield Problem(kind="missing", path=shard, detail=f"{rows} samples of the index lie in it")
        elif sizes[shard] < end + 2 * tarfile.BLOCKSIZE or sizes[shard] % tarfile.RECORDSIZE:
            yield Problem(kind="size", path=shard, detail=f"{sizes[shard]} bytes, its samples reach to {end}")


def _find_orphans(dataset: Dataset, shards: set[str]) -> Iterator[Orphan]:
    now = time.time()
    for info in _unnamed(dataset, shards):
        age = max(now - info.modified, 0.0) if info.modified else 0.0
        yield Orphan(path=info.path, size=info.size, age_seconds=age)


def _unnamed(dataset: Dataset, shards: set[str]) -> Iterator[ObjectInfo]:
    everything = partial(dataset.store.list, hidden=True)
    for folder in ("shards/", "staging/"):
        yield from (info for info in everything(folder) if info.path not in shards)
    for name in TABLES:
        known = _known_files(dataset, name)
        for info in everything(f"{name}/"):
            path = PurePosixPath(info.path).relative_to(name)
            of_log = path.parts[0] == "_delta_log"
            if path.name.startswith(HIDDEN) or not (of_log or path.as_posix() in known):
                yield info


def _known_files(dataset: Dataset, name: str) -> set[str]:
    """The data files of this version and those that only older versions need (a vacuum's to remove)."""
    table = dataset.table(name)
    if table is None:
        return set()
    removable = partial(table.vacuum, retention_hours=0, enforce_retention_duration=False, dry_run=True)
    older = dataset.ask_log(name, removable)
    return {action["path"] for action in add_actions(table)} | {unquote(path) for path in older}


def _read_all(
    check: Callable[[str, Rows], list[Problem]],
    shards: Iterable[tuple[str, Rows]],
    *,
    threads: int,
    progress: Callable[[int], None],
) -> Iterator[Problem]:
    """Check shards side by side; holds the rows of a few at a time, since a large index does not fit in memory."""
    waiting: deque[Future[list[Problem]]] = deque()
    done = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for shard, rows in shards:
            waiting.append(pool.submit(check, shard, rows))
            while len(waiting) >= 2 * threads:
                yield from waiting.popleft().result()
                progress(done := done + 1)
        while waiting:
            yield from waiting.popleft().result()
            progress(done := done + 1)


def _tell(progress: Progress | None, total: int, done: int) -> None:
    if progress:
        progress(done, total)


def _rows_by_shard(database: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, Rows]]:
    ordered = database.sql(
        f"SELECT {', '.join(INDEX_COLUMNS)} FROM samples ORDER BY shard, shard_row"  # noqa: S608 - our own names
    )
    rows = (row for batch in ordered.to_arrow_reader(10_000) for row in batch.to_pylist())
    for shard, group in groupby(rows, key=lambda row: str(row["shard"])):
        yield shard, list(group)
