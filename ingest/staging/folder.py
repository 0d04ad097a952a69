"""The staging folder of a job: its file names, its tables, and the workplace of a unit under way."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.store import Store

_WORK = "work"


def unit_name(index: int, table: str = "") -> str:
    """File name of a unit's marker, or of one of its tables."""
    return f"u{index:06d}.{table}.parquet" if table else f"u{index:06d}.json"


@contextmanager
def workplace(store: Store, staging: str) -> Iterator[Path]:
    """A folder for a unit under way; where staging is a local folder it lies inside, so that nothing is copied."""
    inside = store.local_path(f"{staging}/{_WORK}")
    if inside is not None:
        inside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="biovfm-", dir=inside, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def is_local(store: Store, staging: str) -> bool:
    """Whether staged files lie on a disk of this machine: what is made there must be brought to the disk."""
    return store.local_path(staging) is not None


def put_file(store: Store, staging: str, file: Path, path: str) -> None:
    """Put a file out of a workplace under a path where there is nothing yet.

    Raises:
        AlreadyExistsError: There is something.
    """
    if is_local(store, staging):
        store.move_if_absent(f"{staging}/{_WORK}/{file.parent.name}/{file.name}", path)
    else:
        store.put_if_absent(path, file)


def read_staged(store: Store, staging: str, unit: int, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One of a unit's staged tables."""
    with _open_staged(store, staging, unit, table) as file:
        return file.read(columns=list(columns) if columns else None, use_threads=False)


def staged_batches(store: Store, staging: str, unit: int, table: str, num_rows: int) -> Iterator[pa.RecordBatch]:
    """One of a unit's staged tables, so many rows at a time; from a local disk it is not read as a whole either."""
    with _open_staged(store, staging, unit, table) as file:
        yield from file.iter_batches(num_rows, use_threads=False)


@contextmanager
def _open_staged(store: Store, staging: str, unit: int, table: str) -> Iterator[pq.ParquetFile]:
    path = f"{staging}/{unit_name(unit, table)}"
    local = store.local_path(path)
    there = local is not None and local.exists()  # else the store tells what is wrong
    source = pa.OSFile(str(local)) if there else pa.BufferReader(store.read(path))
    with source, pq.ParquetFile(source, pre_buffer=False) as file:
        yield file
    pa.default_memory_pool().release_unused()  # a job reads thousands of these
