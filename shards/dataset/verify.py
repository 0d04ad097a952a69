"""Is a dataset what its index says? Looks at everything, changes nothing.

The quick check compares the index with a listing: every table file and every shard is there and long enough, every
row of a shard has its place, no key stands twice, and what lies there without being in a table. The deep check reads
every shard once: its SHA-256 against its name, the structure of the tar, and each image's place and CRC-32C against
its index row. It costs one pass over the bytes; memory stays below one sample a thread plus one shard's rows.
"""

from __future__ import annotations

import tarfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from shards.dataset.dataset import Dataset
from shards.dataset.verify_shard import Problem, Rows, check_shard
from shards.errors import SampleIndexError
from shards.store import Store
from shards.store.base import HIDDEN, ObjectInfo

if TYPE_CHECKING:
    import duckdb
    from deltalake import DeltaTable

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
        problems: What is wrong.
        orphans: What lies there without being in the index; harmless.
    """

    url: str
    version: int
    deep: bool
    num_samples: int
    num_shards: int
    num_bytes: int
    problems: tuple[Problem, ...]
    orphans: tuple[Orphan, ...]


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
    problems = [problem for name in TABLES for problem in _check_table(dataset, name)]
    table = None if problems else dataset.table("index")
    sizes = {info.path: info.size for info in dataset.store.list("shards/")}
    shards: dict[str, tuple[int, int]] = {}
    readable = not problems
    if table is not None and readable:
        with dataset.database("samples", version=table.version()) as database:
            shards = _roll_up(database, problems)
            problems += _check_sizes(shards, sizes)
            if deep:
                broken = {problem.path for problem in problems if problem.kind in {"missing", "size"}}
                rows = (item for item in _rows_by_shard(database) if item[0] not in broken)
                tell = partial(_tell, progress, len(shards) - len(broken))
                problems += _read_all(dataset.store, rows, threads=threads, progress=tell)
    return Report(
        url=dataset.url,
        version=-1 if table is None else int(table.version()),
        deep=deep,
        num_samples=sum(rows for rows, _ in shards.values()),
        num_shards=len(shards),
        num_bytes=sum(sizes.get(shard, 0) for shard in shards),
        problems=tuple(problems),
        orphans=tuple(_find_orphans(dataset, set(shards))) if readable else (),
    )


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
            hint="delete by hand what you are sure of",
        )
    rewritten = tuple(f"{name}/" for name in TABLES if operations[name] - _KEEPS_FILES)
    old = [
        orphan
        for orphan in orphans
        if orphan.age_seconds > older_than_seconds
        and (PurePosixPath(orphan.path).name.startswith(HIDDEN) or not orphan.path.startswith(rewritten))
    ]
    dataset.store.delete([orphan.path for orphan in old])
    return old


def _operations(dataset: Dataset, name: str) -> set[str]:
    table = dataset.table(name)
    return set() if table is None else {str(entry.get("operation", "")) for entry in table.history()}


def _check_table(dataset: Dataset, name: str) -> Iterator[Problem]:
    try:
        table = dataset.table(name)
    except SampleIndexError as error:
        yield Problem(kind="table", path=f"{name}/", detail=error.message)
        return
    if table is None:
        return
    there = {info.path: info.size for info in dataset.store.list(f"{name}/")}
    for path, size in _table_files(table):
        file = f"{name}/{path}"
        if file not in there:
            yield Problem(kind="missing", path=file, detail=f"version {table.version()} of the table needs it")
        elif there[file] != size:
            yield Problem(kind="size", path=file, detail=f"{there[file]} bytes, the table's log says {size}")


def _table_files(table: DeltaTable) -> Iterator[tuple[str, int]]:
    import pyarrow as pa

    actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"]).to_pylist()
    for action in actions:
        yield unquote(action["path"]), int(action["size_bytes"])


def _roll_up(database: duckdb.DuckDBPyConnection, problems: list[Problem]) -> dict[str, tuple[int, int]]:
    """Shard → (rows, bytes that its rows reach); notes rows that cannot be."""
    found = {}
    rows = database.sql(
        "SELECT shard, count(*), count(DISTINCT shard_row), min(shard_row), max(shard_row),"
        " max(byte_offset + byte_length) FROM samples GROUP BY shard ORDER BY shard"
    ).fetchall()
    for shard, count, distinct, first, last, end in rows:
        found[shard] = (int(count), int(end))
        if (distinct, first, last) != (count, 0, count - 1):
            detail = f"{count} rows, {distinct} different ones from {first} to {last}"
            problems.append(Problem(kind="rows", path=shard, detail=detail))
    twice = database.sql(
        "SELECT key, count(*) FROM samples GROUP BY key HAVING count(*) > 1 ORDER BY key LIMIT 20"
    ).fetchall()
    problems += [Problem(kind="duplicate", path="index/", detail=f"key {key} stands {n} times") for key, n in twice]
    return found


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
        known = _known_files(dataset.table(name))
        for info in everything(f"{name}/"):
            path = PurePosixPath(info.path).relative_to(name)
            of_log = path.parts[0] == "_delta_log"
            if path.name.startswith(HIDDEN) or not (of_log or path.as_posix() in known):
                yield info


def _known_files(table: DeltaTable | None) -> set[str]:
    """The data files of this version and those that only older versions need (a vacuum's to remove)."""
    if table is None:
        return set()
    older = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=True)
    return {path for path, _ in _table_files(table)} | {unquote(path) for path in older}


def _read_all(
    store: Store, shards: Iterable[tuple[str, Rows]], *, threads: int, progress: Callable[[int], None]
) -> Iterator[Problem]:
    """Check shards side by side; holds the rows of a few at a time, since a large index does not fit in memory."""
    waiting: deque[Future[list[Problem]]] = deque()
    done = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        for shard, rows in shards:
            waiting.append(pool.submit(check_shard, store, shard, rows))
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
        "SELECT shard, shard_row, key, pixel_sha256, extension, byte_offset, byte_length, crc32c FROM samples"
        " ORDER BY shard, shard_row"
    )
    rows = (row for batch in ordered.to_arrow_reader(10_000) for row in batch.to_pylist())
    for shard, group in groupby(rows, key=lambda row: str(row["shard"])):
        yield shard, list(group)
