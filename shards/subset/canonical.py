"""A subset as a dataset of its own: its shards are written again with the wanted samples alone."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards.dataset.dataset import Dataset
from shards.dataset.query import connect, quote, scan
from shards.dataset.shard_file import ShardWriter, read_blocks, shard_path
from shards.errors import AlreadyExistsError, SampleIndexError
from shards.schema import rejects_schema
from shards.subset.finding import verify
from shards.subset.lock import Lock

if TYPE_CHECKING:
    import pyarrow as pa


def materialize(
    lock: Lock, url: str, *, dataset: str | None = None, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Copy a lock's samples into the dataset at `url` (made where needed), as one commit.

    Args:
        lock: The lock; verified first.
        url: The target.
        dataset: Where the lock's dataset lies now; where the lock says, without it.
        progress: Called with shards done and shards in all.

    Returns:
        The target. Running it again changes nothing.
    """
    found = verify(lock, dataset)
    origin = found.dataset
    target = Dataset.create(
        url, encoding=origin.settings["encoding"], pipeline_version=origin.settings.get("pipeline_version")
    )
    job_id = f"materialize-{hashlib.sha256(lock.digest.encode()).hexdigest()[:16]}"
    if target.has_job(job_id):
        return target
    table = origin.table("index", version=found.version)
    if table is None:
        raise SampleIndexError(f"{origin.url} holds no samples yet", hint="run `biovfm ingest` first")
    copied: list[pa.Table] = []
    with connect() as database:
        database.register("samples", scan(table))
        names = [
            name
            for (name,) in database.sql(
                f"SELECT DISTINCT shard FROM samples WHERE {found.where} ORDER BY 1"  # noqa: S608
            ).fetchall()
        ]
        for done, name in enumerate(names):
            rows = database.sql(
                f"SELECT * FROM samples WHERE shard = {quote(name)} AND {found.where} ORDER BY shard_row"  # noqa: S608
            ).to_arrow_table()
            copied.append(_copy_shard(origin, target, name, rows, job_id))
            if progress is not None:
                progress(done + 1, len(names))
    import pyarrow as pa

    rows = pa.concat_tables(copied)
    summary = {"source": "materialize", "digest": lock.digest, "kept": rows.num_rows, "items": rows.num_rows}
    target.commit(job_id=job_id, rows=rows, rejects=rejects_schema().empty_table(), summary=summary)
    return target


def _copy_shard(origin: Dataset, target: Dataset, name: str, rows: pa.Table, job_id: str) -> pa.Table:
    import pyarrow as pa

    records: list[dict[str, Any]] = rows.to_pylist()
    wanted = {record["key"]: record for record in records}
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "origin.tar"
        with origin.store.open_stream(name) as stream, whole.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 20)
        with ShardWriter(Path(folder) / "part.tar") as writer, whole.open("rb") as stream:
            for block in read_blocks(stream, name=name):
                if block.key in wanted:
                    placement = writer.add_block(block)
                    wanted[block.key].update(
                        shard_row=placement.shard_row, byte_offset=placement.byte_offset, crc32c=placement.crc32c
                    )
            shard = writer.close()
        path = shard_path(records[0]["source"], records[0]["modality"], shard.sha256)
        with suppress(AlreadyExistsError):
            target.store.put_if_absent(path, shard.path)
    return pa.Table.from_pylist([{**record, "shard": path, "job_id": job_id} for record in records], schema=rows.schema)
