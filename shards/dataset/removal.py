"""Samples taken out of a dataset: out of their shards, the index and the fingerprints.

A shard that loses samples is written again without them, under the name of its new content. Then one commit of the
index lets the rows of these shards point at the new ones and leaves out the rows of what goes: a reader sees all of it
or nothing. The fingerprints follow in a commit of their own. Older versions, and the shards that they name, stay as
they are, so a lock of one of them streams on.

A kill at any moment loses nothing: before the commit there are only objects that nobody names, and the same call with
the same transaction makes them again under the same names; after it the same call completes the fingerprints.

Cost: one pass over the shards that lose samples; of the tables only the files that hold rows of them.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shards.dataset.replace import Change, replace_files
from shards.dataset.rewrite import Thinned, drop_rows, may_hold, schema_of
from shards.dataset.shard_file import ShardWriter, read_blocks, shard_path, shard_tags
from shards.dataset.table_files import add_actions, write_files
from shards.errors import AlreadyExistsError, SampleIndexError, ShardError, StoreError
from shards.schema import PARTITIONS
from shards.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable
    from deltalake.transaction import AddAction

    from shards.dataset.dataset import Dataset

PLACE: Final = ("shard_row", "byte_offset", "byte_length", "crc32c")
"""Where a sample lies in its shard."""
_THREADS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What a removal did.

    Attributes:
        version: The index version after it.
        num_samples: Samples that went; 0 where the transaction was committed before.
        shards: Shard that was rewritten → the one in its place, or None where nothing of it is left.
    """

    version: int
    num_samples: int
    shards: Mapping[str, str | None]


def remove_samples(
    dataset: Dataset,
    keys: Sequence[str] | pa.Array,
    *,
    transaction: str,
    summary: Mapping[str, Any] | None = None,
    shards: Sequence[str] = (),
    note: Callable[[str], None] | None = None,
) -> Removed:
    """Take samples out of a dataset, once for each transaction.

    Args:
        dataset: The dataset.
        keys: Keys of the samples; those that it does not hold are passed over.
        transaction: What a repeated call is known by; its name in the history.
        summary: Kept in the commit, as that of a job; `removed` is added to it.
        shards: More shards to write again without what no row of the index names.
        note: Told the name of each new shard before it appears.

    Raises:
        ShardError: A shard does not hold what the index says.
        StoreError: The storage failed.
    """
    removal = Removal(dataset, lambda _: keys, transaction=transaction, shards=shards, note=note)
    version = replace_files(dataset, "index", removal.plan, transaction=transaction, summary=summary)
    drop_prints(dataset, transaction)
    return Removed(version=version, num_samples=removal.num_samples, shards=removal.shards)


class Removal:
    """The index's part of a removal, for `replace_files`.

    Args:
        dataset: The dataset.
        keys_of: The keys of the samples to take out of a version of the index.
        transaction: Goes into the names of the new table files.
        shards: More shards to write again.
        note: Told the name of each new shard before it appears.

    Attributes:
        num_samples: Samples that go, by the last plan.
        shards: Shard → the one in its place, by the last plan.
    """

    def __init__(
        self,
        dataset: Dataset,
        keys_of: Callable[[int], Sequence[str] | pa.Array],
        *,
        transaction: str,
        shards: Sequence[str] = (),
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._dataset = dataset
        self._keys_of = keys_of
        self._transaction = transaction
        self._also = shards
        self._note = note or _ignore
        self.num_samples = 0
        self.shards: dict[str, str | None] = {}

    def plan(self, table: DeltaTable) -> Change:
        """What becomes of the files of the index."""
        import pyarrow as pa

        version = int(table.version())
        keys = pa.table({"key": pa.array(self._keys_of(version), pa.string())})
        also = pa.table({"shard": pa.array(self._also, pa.string())})
        sql = (
            "SELECT shard, count(found.key)::BIGINT AS num FROM samples LEFT JOIN keys found USING (key) "
            "WHERE found.key IS NOT NULL OR shard IN (SELECT shard FROM also) GROUP BY shard ORDER BY shard"
        )
        found = self._dataset.query(sql, version=version, keys=keys, also=also)
        self.num_samples = sum(found["num"].to_pylist())
        self.shards = dict.fromkeys(found["shard"].to_pylist())
        if not self.shards:
            return Change(counts={"removed": 0})
        with tempfile.TemporaryDirectory(prefix="biovfm-") as scratch:
            rewritten = sorted(self._rewritten(Path(scratch), version, keys, found.select(["shard"])))
            reader = pa.RecordBatchReader.from_batches(schema_of(table), _spooled(rewritten))
            added = write_files(self._dataset.store, "index", self._transaction, reader, PARTITIONS)
        gone, kept = self._thinned(table)
        return Change(gone=gone, added=[*kept, *added], counts={"removed": self.num_samples})

    def _thinned(self, table: DeltaTable) -> tuple[Sequence[str], Sequence[AddAction]]:
        """The files of the index without the rows of the rewritten shards."""
        import pyarrow as pa
        import pyarrow.compute as pc

        names = sorted(self.shards)
        wanted = pa.array(names, pa.string())
        thinned = Thinned(
            self._dataset,
            "index",
            lambda batch: pc.is_in(batch["shard"], value_set=wanted),
            columns=["shard"],
            transaction=self._transaction,
        )
        bounds = {"shard": (names[0], names[-1])}
        change, _ = thinned.change(table, [action for action in add_actions(table) if may_hold(action, bounds)])
        return change.gone, change.added

    def _rewritten(self, scratch: Path, version: int, keys: pa.Table, shards: pa.Table) -> Iterator[tuple[Any, Path]]:
        """Rewrite the shards side by side: for each that is left, what its rows are sorted by, and a file of them."""
        pending: deque[Future[tuple[Any, Path] | None]] = deque()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="rewrite") as pool:
            for number, rows in enumerate(_rows_by_shard(self._dataset, version, keys, shards)):
                pending.append(pool.submit(self._rewrite, scratch / f"{number}", rows))
                if len(pending) >= 2 * _THREADS and (done := pending.popleft().result()):
                    yield done
            yield from (done for future in pending if (done := future.result()))

    def _rewrite(self, place: Path, rows: pa.Table) -> tuple[Any, Path] | None:
        import pyarrow as pa
        import pyarrow.compute as pc

        old = str(rows["shard"][0].as_py())
        rows = rows.filter(pc.invert(rows["goes"])).drop_columns(["goes"])
        if not len(rows):
            return None
        shard, rows = rewrite_shard(self._dataset.store, old, rows, place.with_suffix(".tar"), self._note)
        self.shards[old] = shard
        file = place.with_suffix(".arrow")
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        source, modality = shard_tags(shard)
        return (modality, source, shard), file


def rewrite_shard(
    store: Store, old: str, rows: pa.Table, file: Path, note: Callable[[str], None]
) -> tuple[str, pa.Table]:
    """Put a shard that holds the samples of some rows of another.

    Args:
        store: The dataset.
        old: The shard that holds them.
        rows: Index rows of this shard, by `shard_row`.
        file: Where to write it on the way.
        note: Told its name before it appears.

    Returns:
        Its name, and the rows as they are in it.

    Raises:
        ShardError: The old shard does not hold what the rows say.
        StoreError: What came to lie there is not what was written.
    """
    import pyarrow as pa

    with ShardWriter(file) as writer:
        places = add_blocks(writer, store, old, rows)
        finished = writer.close()
    source, modality = shard_tags(old)
    shard = shard_path(source, modality, finished.sha256)
    note(shard)
    put_shard(store, file, shard, finished.sha256)
    file.unlink()
    for name, values in zip(PLACE, zip(*places, strict=True), strict=True):
        rows = _with(rows, name, pa.array(values, rows.schema.field(name).type))
    return shard, _with(rows, "shard", pa.array([shard] * len(rows), pa.string()))


def add_blocks(writer: ShardWriter, store: Store, old: str, rows: pa.Table) -> list[tuple[int, ...]]:
    """Append the samples of some rows of a shard to another, as they lie.

    Args:
        writer: Of the other.
        store: The dataset.
        old: The shard that holds them.
        rows: `shard_row`, `key` and `crc32c` of these samples, by `shard_row`.

    Returns:
        Where each lies now, as `PLACE` has it.

    Raises:
        ShardError: The shard does not hold what the rows say.
    """
    wanted = dict(zip(rows["shard_row"].to_pylist(), rows.select(["key", "crc32c"]).to_pylist(), strict=True))
    places: list[tuple[int, ...]] = []
    with store.open_stream(old) as stream:
        for number, block in enumerate(read_blocks(stream, name=old)):
            row = wanted.pop(number, None)
            if row is None:
                continue
            placed = writer.add_block(block)
            if block.key != row["key"] or placed.crc32c != row["crc32c"]:
                raise _damaged(old, row["key"])
            places.append(tuple(getattr(placed, name) for name in PLACE))
    if wanted:
        raise _damaged(old, next(iter(wanted.values()))["key"])
    return places


def put_shard(store: Store, file: Path, shard: str, sha256: str) -> None:
    """Put a file under the name of its content, and look whether it came through.

    Raises:
        StoreError: What came to lie there is not what was written.
    """
    import hashlib

    with suppress(AlreadyExistsError):  # the same bytes
        store.put_if_absent(shard, file)
    if store.local_path(shard) is not None:
        return
    digest = hashlib.sha256()
    with store.open_stream(shard) as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        store.delete([shard])
        raise StoreError(f"{store.url}/{shard} does not hold what was written", hint="run the same command again")


def drop_prints(dataset: Dataset, transaction: str) -> int:
    """Take the fingerprints of what a committed removal took out; harmless when repeated.

    What went is told by the two versions of the index around the commit, so it is known after a kill as well. Rows
    that the same transaction added (a file that changed and kept its pixels) stay.

    Returns:
        Rows that went.
    """
    import pyarrow.compute as pc

    after = next((int(job["version"]) for job in dataset.jobs() if job["job_id"] == transaction), None)
    if not after:
        return 0
    try:
        now = dataset.query("SELECT key, job_id FROM samples", version=after)
        went = dataset.query(
            "SELECT key FROM samples ANTI JOIN now USING (key, job_id) ORDER BY key", version=after - 1, now=now
        )["key"]
    except SampleIndexError:  # a vacuum has taken one of the versions; it waits for the fingerprints
        return 0
    if not len(went):
        return 0
    keys = went.combine_chunks()
    return drop_rows(
        dataset,
        "fingerprints",
        lambda batch: pc.is_in(batch["key"], value_set=keys),
        columns=["key"],
        transaction=f"{transaction}-fingerprints",
        bounds={"key": (keys[0].as_py(), keys[-1].as_py())},
        spared=transaction,
    )


def _rows_by_shard(dataset: Dataset, version: int, keys: pa.Table, shards: pa.Table) -> Iterator[pa.Table]:
    """The index rows of some shards, one shard after the other; the column `goes` says which of them go."""
    import pyarrow as pa

    schema = schema_of(dataset.samples_table(version))
    columns = ", ".join(schema.names)
    sql = (
        f"SELECT {columns}, key IN (SELECT key FROM keys) AS goes FROM samples "  # noqa: S608 - our own names
        "WHERE shard IN (SELECT shard FROM shards) ORDER BY shard, shard_row"
    )
    wanted = schema.append(pa.field("goes", pa.bool_()))
    with dataset.database("samples", version=version, keys=keys, shards=shards) as database:
        waiting: list[pa.RecordBatch] = []
        for batch in database.sql(sql).to_arrow_reader(4096):
            for run in _runs(batch):
                if waiting and waiting[0]["shard"][0].as_py() != run["shard"][0].as_py():
                    yield pa.Table.from_batches(waiting).cast(wanted)
                    waiting = []
                waiting.append(run)
        if waiting:
            yield pa.Table.from_batches(waiting).cast(wanted)


def _runs(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The runs of rows of one shard."""
    import pyarrow.compute as pc

    encoded = pc.run_end_encode(batch["shard"])
    start = 0
    for end in encoded.run_ends.to_pylist():
        yield batch.slice(start, end - start)
        start = end


def _spooled(files: Sequence[tuple[Any, Path]]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    for _, file in files:
        with pa.OSFile(str(file)) as source:
            yield from pa.ipc.open_stream(source)


def _with(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), values)


def _damaged(shard: str, key: str) -> ShardError:
    return ShardError(
        f"{shard} does not hold {key} as the index says", hint="run `biovfm verify --deep` on the dataset"
    )


def _ignore(_shard: str) -> None:
    pass
