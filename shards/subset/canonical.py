"""The canonical form: a subset as a dataset of its own, the same bytes whatever it was copied from.

Per source and modality the samples are sorted by key and cut into shards wherever their images reach `SHARD_BYTES`. A
shard is named after its position and a digest over its keys and pixel hashes. The JSON beside an image is the origin's
without group and raw path, which depend on the secret of whoever ingested; these stay in the index. So two datasets of
the same samples, packed otherwise, ingested under other secrets, have copies with the same shards, and one lock of
either copy holds on the other, order included. Fingerprints travel in their table. Rejects do not: they tell of raw
files that are no part of the subset; the commit says how many there were, by source and reason.

Memory: a few shards per worker, and what DuckDB may take for the sort, which goes to disk where it is large.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c

from shards.dataset.dataset import Dataset
from shards.dataset.left_out import LEFT_OUT, left_out
from shards.dataset.query import scan
from shards.dataset.shard_file import Sample, ShardWriter, canonical_path, json_of, meta_of
from shards.dataset.withdrawals import RELOCK
from shards.errors import AlreadyExistsError, ConfigError, ShardError, SubsetError
from shards.read.remote import read_coalesced
from shards.schema import fingerprint_schema, index_schema, rejects_schema
from shards.store import Store
from shards.subset.chosen import run
from shards.subset.finding import Found, verify
from shards.subset.lock import Lock, samples_of
from shards.subset.relock import require_nothing_withdrawn

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SHARD_BYTES = 64 << 20
"""Image bytes at which a shard ends; part of the form."""
_BLOCK = 512
_JSON_GUESS = 2 * _BLOCK
"""A JSON is read with its image up to here; behind the last one of a tar are as many zeros."""
_LEFT_OUT = ("group_id", "raw_path")
_READ_ROWS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """The rows of one shard to be written."""

    source: str
    modality: str
    position: int
    rows: Sequence[Mapping[str, Any]]


def materialize(
    lock: Lock,
    url: str,
    *,
    dataset: str | None = None,
    keys: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    withdrawn: Callable[[pa.Table], Sequence[bool]] | None = None,
) -> Dataset:
    """Copy a lock's samples into the dataset at `url` (made where needed), as one commit.

    Into an empty target this gives the canonical form. A target that holds some of the samples gets those that it does
    not hold; where it holds all, nothing is done.

    Args:
        lock: The lock; compared with its dataset first.
        url: The target.
        dataset: Where the lock's dataset lies now; where the lock says, without it.
        keys: The lock's list of samples, where it has one.
        workers: Threads that copy; the bytes do not depend on their number.
        progress: Called with samples done and samples in all.
        withdrawn: Which rows of the index were withdrawn from the target, where anything was.

    Returns:
        The target.

    Raises:
        SubsetError: The lock does not hold, it holds samples that were withdrawn, or the target has samples of the same
            keys and other pixels.
        ConfigError: The target is encoded otherwise, or the number of workers is negative.
        ShardError: A sample's bytes are not what the index says.
    """
    if workers < 0:
        raise ConfigError(f"{workers} workers", hint="give --workers 1 or more")
    found = verify(lock, dataset, keys=keys)
    require_nothing_withdrawn(found)
    origin = found.dataset
    target = Dataset.create(
        url,
        encoding=origin.settings.get("encoding"),
        pipeline_version=origin.settings.get("pipeline_version"),
        deidentification=origin.settings.get("deidentification"),
    )
    _check_encoding(origin, target)
    with _wanted(found, target, withdrawn) as database, tempfile.TemporaryDirectory(prefix="biovfm-") as scratch:
        ((num,),) = database.sql("SELECT count(*) FROM wanted").fetchall()
        if not num:
            return target
        job = _job_of(lock, target)
        spool = Path(scratch) / "rows.parquet"
        copier = _Copier(origin.store, target.store, Path(scratch), job)
        _copy_all(database, copier, spool, workers, _counter(progress, num))
        _commit(found, target, database, job, spool)
    return target


def _job_of(lock: Lock, target: Dataset) -> str:
    """One name per lock and state of the target: a copy that is repeated after a kill is the same job."""
    name = f"{lock.digest} {target.version()}"
    return f"materialize-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _check_encoding(origin: Dataset, target: Dataset) -> None:
    one, two = (dataset.settings.get("encoding", {}) for dataset in (origin, target))
    for name in sorted({*one, *two}):
        if name in one and name in two and one[name] != two[name]:
            raise ConfigError(
                f"{target.url} is encoded with {name}={two[name]}, the subset with {name}={one[name]}",
                hint="materialize into another, empty place",
            )


@contextmanager
def _wanted(
    found: Found, target: Dataset, withdrawn: Callable[[pa.Table], Sequence[bool]] | None
) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the tables of the origin, and `wanted`: the lock's rows that the target does not hold."""
    with samples_of(found.lock, found.dataset, found.version, dictionaries=()) as database:
        prints = found.dataset.table("fingerprints")
        database.register("fingerprints", fingerprint_schema().empty_table() if prints is None else scan(prints))
        if "FROM listed" in found.where:
            raise SubsetError(
                "the samples were found by their list of keys only", hint="make a new lock with `biovfm subset create`"
            )
        run(database, f"CREATE TEMP TABLE wanted AS SELECT * FROM samples WHERE {found.where}")  # noqa: S608
        present = target.table("index")
        if present is not None:
            database.register("present", scan(present))
            _leave_out_present(database, target)
        _refuse_withdrawn(database, target, withdrawn)
        yield database


def _refuse_withdrawn(
    database: duckdb.DuckDBPyConnection, target: Dataset, withdrawn: Callable[[pa.Table], Sequence[bool]] | None
) -> None:
    """Bring nothing back that was withdrawn from the target."""
    if target.table("withdrawn") is None:
        return
    if withdrawn is None:
        raise SubsetError(
            f"samples were withdrawn from {target.url}, and nothing tells here which",
            hint="use `biovfm subset materialize` with the target's secret, or another, empty place",
        )
    num = sum(withdrawn(database.sql("SELECT * FROM wanted").to_arrow_table()))
    if num:
        raise SubsetError(f"{num:,} of the locked samples were withdrawn from {target.url}", hint=RELOCK)


def _leave_out_present(database: duckdb.DuckDBPyConnection, target: Dataset) -> None:
    ((num, key),) = database.sql("""SELECT count(*), min(key) FROM wanted JOIN present USING (key)
        WHERE wanted.pixel_sha256 != present.pixel_sha256""").fetchall()
    if num:
        raise SubsetError(
            f"{target.url} holds {num:,} samples of the same keys and other pixels, such as {key}",
            hint="materialize into another, empty place",
        )
    database.execute("DELETE FROM wanted WHERE pixel_sha256 IN (SELECT pixel_sha256 FROM present)")


def _counter(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None]:
    done = 0

    def count(num: int) -> None:
        nonlocal done
        done += num
        if progress is not None:
            progress(done, total)

    return count


def _copy_all(
    database: duckdb.DuckDBPyConnection, copier: _Copier, spool: Path, workers: int, count: Callable[[int], None]
) -> None:
    """Copy all groups, their rows into `spool` in order; at most two groups per worker are in memory."""
    import pyarrow.parquet as pq

    waiting: deque[Future[pa.Table]] = deque()
    with (
        ThreadPoolExecutor(max(workers, 1), thread_name_prefix="materialize") as pool,
        pq.ParquetWriter(spool, index_schema(), compression="zstd") as writer,
    ):

        def take() -> None:
            rows = waiting.popleft().result()
            writer.write_table(rows)
            count(len(rows))

        try:
            for group in _groups(database):
                waiting.append(pool.submit(copier.copy, group))
                if len(waiting) >= 2 * max(workers, 1):
                    take()
            while waiting:
                take()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _groups(database: duckdb.DuckDBPyConnection) -> Iterator[_Group]:
    parts = database.sql("SELECT DISTINCT modality, source FROM wanted ORDER BY 1, 2").fetchall()
    for modality, source in parts:
        sql = "SELECT * FROM wanted WHERE modality = ? AND source = ? ORDER BY key"
        reader = database.sql(sql, params=[modality, source]).to_arrow_reader(_READ_ROWS)
        rows: list[Mapping[str, Any]] = []
        size = position = 0
        for row in (row for batch in reader for row in batch.to_pylist()):
            rows.append(row)
            size += row["byte_length"]
            if size >= SHARD_BYTES:
                yield _Group(source=source, modality=modality, position=position, rows=rows)
                rows, size, position = [], 0, position + 1
        if rows:
            yield _Group(source=source, modality=modality, position=position, rows=rows)


class _Copier:
    """Writes one shard of the canonical form; safe to use from several threads."""

    def __init__(self, origin: Store, target: Store, scratch: Path, job_id: str) -> None:
        self._origin = origin
        self._target = target
        self._scratch = scratch
        self._job_id = job_id

    def copy(self, group: _Group) -> pa.Table:
        """Write a group's shard; gives its index rows."""
        import pyarrow as pa

        path = canonical_path(
            group.source, group.modality, group.position, ((row["key"], row["pixel_sha256"]) for row in group.rows)
        )
        read = self._read(group.rows)
        file = self._scratch / path.replace("/", "_")
        rows = []
        with ShardWriter(file) as writer:
            for row, (image, meta) in zip(group.rows, read, strict=True):
                kept = {name: value for name, value in meta.items() if name not in _LEFT_OUT}
                sample = Sample(key=row["key"], extension=row["extension"], image=image, meta=kept)
                placed = writer.add(sample)
                place = {name: getattr(placed, name) for name in ("shard_row", "byte_offset", "crc32c")}
                rows.append({**row, **place, "shard": path, "job_id": self._job_id})
            shard = writer.close()
        self._put(path, shard.path, shard.sha256)
        shard.path.unlink()
        return pa.Table.from_pylist(rows, schema=index_schema())

    def _put(self, path: str, file: Path, sha256: str) -> None:
        try:
            self._target.put_if_absent(path, file)
        except AlreadyExistsError:  # left by a copy that was interrupted; the name tells the samples, not all bytes
            if hashlib.sha256(self._target.read(path)).hexdigest() != sha256:
                raise SubsetError(
                    f"{path} is there with other bytes: the same samples, encoded otherwise",
                    hint="materialize into another, empty place",
                ) from None

    def _read(self, rows: Sequence[Mapping[str, Any]]) -> list[tuple[bytes, Mapping[str, Any]]]:
        """The images, checked against the index, and the JSON beside each, in order."""
        by_shard: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            by_shard.setdefault(row["shard"], []).append(number)
        found: dict[int, tuple[bytes, Mapping[str, Any]]] = {}
        for shard, numbers in by_shard.items():
            lengths = [_padded(rows[number]["byte_length"]) + _BLOCK + _JSON_GUESS for number in numbers]
            ranges = [(rows[n]["byte_offset"], length) for n, length in zip(numbers, lengths, strict=True)]
            for number, data in zip(numbers, read_coalesced(self._origin, shard, ranges), strict=True):
                found[number] = self._sample(rows[number], data)
        return [found[number] for number in range(len(rows))]

    def _sample(self, row: Mapping[str, Any], data: bytes) -> tuple[bytes, Mapping[str, Any]]:
        image = data[: row["byte_length"]]
        where = f"{row['shard']}: {row['key']} at offset {row['byte_offset']}"
        if google_crc32c.value(image) != row["crc32c"]:
            raise ShardError(f"{where} fails its checksum", hint="run `biovfm verify --deep` on the dataset")
        start = _padded(len(image))
        size = json_of(data[start : start + _BLOCK], key=row["key"], where=where)
        start += _BLOCK
        text = data[start : start + size]
        if len(text) < size:
            text = self._origin.read_range(row["shard"], row["byte_offset"] + start, size)
        return image, meta_of(text, where=where)


def _padded(length: int) -> int:
    return -(-length // _BLOCK) * _BLOCK


def _commit(found: Found, target: Dataset, database: duckdb.DuckDBPyConnection, job: str, spool: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    num = pq.read_metadata(spool).num_rows
    sources = {source for (source,) in database.sql("SELECT DISTINCT source FROM wanted").fetchall()}
    counts = left_out(found.dataset, found.version)

    def rows() -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(index_schema(), pq.ParquetFile(spool).iter_batches(_READ_ROWS))

    def prints() -> pa.RecordBatchReader:
        names = ", ".join(f"fingerprints.{name}" for name in fingerprint_schema().names)
        sql = f"SELECT {names} FROM fingerprints SEMI JOIN wanted USING (key, pixel_sha256)"  # noqa: S608
        batches = database.sql(sql).to_arrow_reader(1024)
        schema = fingerprint_schema()
        return pa.RecordBatchReader.from_batches(schema, (batch.cast(schema) for batch in batches))

    summary = {
        "source": "materialize",
        "digest": found.lock.digest,
        "kept": num,
        "rejected": 0,
        "items": num,
        "sources": found.lock.sources,
        LEFT_OUT: {source: reasons for source, reasons in counts.items() if source in sources},
    }
    nothing = rejects_schema().empty_table()
    target.commit(job_id=job, rows=rows, rejects=nothing, fingerprints=prints, summary=summary)
