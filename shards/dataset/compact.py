"""Many small shards and table files become few: what a dataset that grows weekly needs once in a while.

Shards of one source and modality that hold less than half a shard are written one behind the other, in the order of
their names, into shards of about `shard_bytes`; the small files of each table (of one partition) become one. Samples
and rows stay the same, the order of an epoch is another: a lock goes on with the version that it pins, and whoever
opens it where that version is gone is told that the packing is another.

Each table changes in one commit. A kill leaves objects that nobody names; the same call makes them again under the same
names, and of a compact dataset it changes nothing.

Memory: a sort of the rows of the files that are merged, on disk where it is large, and four numbers per moved sample.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shards.dataset.query import connect
from shards.dataset.removal import PLACE, add_blocks, put_shard
from shards.dataset.replace import Change, replace_files
from shards.dataset.rewrite import read_rows, schema_of
from shards.dataset.shard_file import ShardWriter, shard_path
from shards.dataset.table_files import FILE_BYTES, add_actions, keep_log, partition_of, write_files
from shards.schema import PARTITIONS

if TYPE_CHECKING:
    import pyarrow as pa
    from deltalake import DeltaTable

    from shards.dataset.dataset import Dataset

SMALL_FILE_BYTES: Final = FILE_BYTES // 4
TABLES: Final = ("fingerprints", "rejects", "raw_files")
"""The tables beside the index whose files are merged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What a compaction did.

    Attributes:
        version: The index version after it.
        shards: Small shards that are no part of it any more.
        into: Shards that took their place.
        files: Table files that were merged, by table.
    """

    version: int
    shards: int
    into: int
    files: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merge:
    """Shards that become one: source, modality, and their names in order."""

    source: str
    modality: str
    shards: Sequence[str]


def compact(
    dataset: Dataset, *, shard_bytes: int = 64 << 20, progress: Callable[[int, int], None] | None = None
) -> Compacted:
    """Merge small shards and table files.

    Args:
        dataset: The dataset.
        shard_bytes: About so large the new shards are; those of less than half of it are merged.
        progress: Told after each new shard: shards done, shards in all.

    Raises:
        ShardError: A shard does not hold what the index says.
        StoreError: The storage failed.
    """
    under_way = next(iter(dataset.store.list("staging/")), None) is not None
    # A job tells the fingerprints that it has added by the names of their files.
    tables = [name for name in TABLES if not (name == "fingerprints" and under_way)]
    for name in ("index", *TABLES):
        dataset.ask_log(name, partial(_keep_log, dataset, name))
    files = {name: _merge_files(dataset, name) for name in tables}
    compaction = _Compaction(dataset, shard_bytes, progress or _ignore)
    transaction = f"compact-{dataset.version()}"
    version = replace_files(
        dataset, "index", compaction.plan, transaction=transaction, operation="OPTIMIZE", rows_change=False
    )
    files["index"] = compaction.num_files
    return Compacted(version=version, shards=compaction.num_shards, into=compaction.num_into, files=files)


class _Compaction:
    """The index's part."""

    def __init__(self, dataset: Dataset, shard_bytes: int, tell: Callable[[int, int], None]) -> None:
        self._dataset = dataset
        self._shard_bytes = shard_bytes
        self._tell = tell
        self.num_shards = self.num_into = self.num_files = 0

    def plan(self, table: DeltaTable) -> Change | None:
        """What becomes of the files of the index."""
        import pyarrow as pa

        merges = self._merges(int(table.version()))
        old = [shard for merge in merges for shard in merge.shards]
        files = _affected(self._dataset, table, set(old))
        self.num_shards, self.num_into, self.num_files = len(old), len(merges), len(files)
        if not files:
            return None
        transaction = f"compact-{table.version()}"
        places = self._write(merges, int(table.version()))
        rows = _sorted_rows(self._dataset, table, files, places)
        reader = pa.RecordBatchReader.from_batches(schema_of(table), rows)
        added = write_files(self._dataset.store, "index", transaction, reader, PARTITIONS)
        counts = {"compacted_shards": len(old), "compacted_files": len(files)}
        return Change(gone=[action["path"] for action in files], added=added, counts=counts)

    def _merges(self, version: int) -> list[_Merge]:
        """The shards to write: runs of small ones of a source and modality, as long as they fit."""
        sql = (
            "SELECT source, modality, shard, max(byte_offset + byte_length)::BIGINT AS size FROM samples "
            "GROUP BY ALL ORDER BY source, modality, shard"
        )
        merges: list[_Merge] = []
        run: list[str] = []
        tags, total = ("", ""), 0

        def end() -> None:
            if len(run) > 1:
                merges.append(_Merge(source=tags[0], modality=tags[1], shards=tuple(run)))
            run.clear()

        for row in self._dataset.query(sql, version=version).to_pylist():
            if row["size"] >= self._shard_bytes // 2:
                continue
            if (row["source"], row["modality"]) != tags or total >= self._shard_bytes:
                end()
                tags, total = (row["source"], row["modality"]), 0
            run.append(row["shard"])
            total += row["size"]
        end()
        return merges

    def _write(self, merges: Sequence[_Merge], version: int) -> pa.Table:
        """Write the new shards; returns where each moved sample lies now, by its old shard and row."""
        import pyarrow as pa

        names = ("old", "old_row", "new", *PLACE)
        columns: dict[str, list[Any]] = {name: [] for name in names}
        with tempfile.TemporaryDirectory(prefix="biovfm-") as scratch:
            for number, merge in enumerate(merges):
                file = Path(scratch) / "shard.tar"
                moved: list[tuple[str, int, tuple[int, ...]]] = []
                with ShardWriter(file) as writer:
                    for shard in merge.shards:
                        rows = self._dataset.query(
                            "SELECT shard_row, key, crc32c FROM samples WHERE shard = ? ORDER BY shard_row",
                            params=[shard],
                            version=version,
                        )
                        placed = add_blocks(writer, self._dataset.store, shard, rows)
                        moved += zip([shard] * len(rows), rows["shard_row"].to_pylist(), placed, strict=True)
                    finished = writer.close()
                new = shard_path(merge.source, merge.modality, finished.sha256)
                put_shard(self._dataset.store, file, new, finished.sha256)
                file.unlink()
                for shard, row, place in moved:
                    for name, value in zip(names, (shard, row, new, *place), strict=True):
                        columns[name].append(value)
                self._tell(number + 1, len(merges))
        types = {"old": pa.string(), "new": pa.string()}
        return pa.table({name: pa.array(values, types.get(name, pa.int64())) for name, values in columns.items()})


def _affected(dataset: Dataset, table: DeltaTable, old: set[str]) -> list[dict[str, Any]]:
    """The files to merge: those that hold rows of moved samples, and small ones of a partition that has several."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(old), pa.string())
    actions = add_actions(table)
    small: dict[tuple[str, ...], int] = {}
    for action in actions:
        if action["size_bytes"] < SMALL_FILE_BYTES:
            key = tuple(partition_of(action).values())
            small[key] = small.get(key, 0) + 1

    def moves(action: Mapping[str, Any]) -> bool:
        batches = read_rows(dataset, table, "index", action, ["shard"])
        return any(pc.any(pc.is_in(batch["shard"], value_set=wanted)).as_py() for batch in batches)

    return [
        action
        for action in actions
        if (action["size_bytes"] < SMALL_FILE_BYTES and small[tuple(partition_of(action).values())] > 1)
        or (old and moves(action))
    ]


def _sorted_rows(
    dataset: Dataset, table: DeltaTable, files: Sequence[Mapping[str, Any]], places: pa.Table
) -> Iterator[pa.RecordBatch]:
    """The rows of some files with their new places, in the order that a commit has."""
    import pyarrow as pa

    schema = schema_of(table)
    rows = (batch for file in files for batch in read_rows(dataset, table, "index", file))
    moved = {name: f"CASE WHEN new IS NULL THEN rows.{name} ELSE places.{name} END" for name in PLACE}
    moved["shard"] = "coalesce(new, shard)"
    columns = ", ".join(f"{moved.get(name, f'rows.{name}')} AS {name}" for name in schema.names)
    sql = (
        f"SELECT * FROM (SELECT {columns} FROM rows LEFT JOIN places ON shard = old AND rows.shard_row = old_row) "  # noqa: S608 - our own names
        "ORDER BY modality, source, shard, shard_row"
    )
    with connect() as database:
        database.register("rows", pa.RecordBatchReader.from_batches(schema, rows))
        database.register("places", places)
        for batch in database.sql(sql).to_arrow_reader(4096):
            yield from pa.Table.from_batches([batch]).cast(schema).to_batches()


def _keep_log(dataset: Dataset, name: str) -> None:
    if (table := dataset.table(name)) is not None:
        keep_log(table)


def _merge_files(dataset: Dataset, name: str) -> int:
    """Merge the small files of a table without partitions."""
    import pyarrow as pa

    merged = 0

    def plan(table: DeltaTable) -> Change | None:
        nonlocal merged
        files = [action for action in add_actions(table) if action["size_bytes"] < SMALL_FILE_BYTES]
        merged = len(files) if len(files) > 1 else 0
        if not merged:
            return None
        files.sort(key=lambda action: (action["modification_time"], action["path"]))
        rows = (batch for file in files for batch in read_rows(dataset, table, name, file))
        reader = pa.RecordBatchReader.from_batches(schema_of(table), rows)
        added = write_files(dataset.store, name, f"compact-{table.version()}", reader)
        return Change(gone=[file["path"] for file in files], added=added)

    table = dataset.table(name)
    if table is not None:
        transaction = f"compact-{table.version()}"
        replace_files(dataset, name, plan, transaction=transaction, operation="OPTIMIZE", rows_change=False)
    return merged


def _ignore(_done: int, _total: int) -> None:
    pass
