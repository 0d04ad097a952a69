"""The files of one Delta table against its log, and their content against the hash in their names.

A file that a commit of ours wrote carries the first 16 hex digits of its SHA-256 in its name (see
`shards.dataset.table_files`): that is the hash kept at commit. The log itself has none; so what it says of a file
(rows, least and greatest values, partition) is compared with the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from shards.dataset.dataset import Dataset
from shards.dataset.table_files import add_actions, bounds_of, hash_in_name, partition_folders, partition_of
from shards.dataset.table_log import cut_entries
from shards.dataset.verify_shard import Problem
from shards.errors import SampleIndexError, StoreError
from shards.store import Store


def check_table(dataset: Dataset, name: str, *, deep: bool) -> Iterator[Problem]:
    """What is wrong with the files of one table.

    Args:
        dataset: The dataset.
        name: Folder of the table.
        deep: Also read every file.
    """
    try:
        table = dataset.table(name)
        if table is None:
            return
        actions = add_actions(table)
    except SampleIndexError as error:
        yield Problem(kind="table", path=f"{name}/", detail=error.message)
        return
    for path in cut_entries(dataset.store, name, int(table.version())):
        detail = "it ends before its transaction: lines were cut off, and files that they named are missing"
        yield Problem(kind="table", path=path, detail=detail)
    there = {info.path: info.size for info in dataset.store.list(f"{name}/")}
    for action in actions:
        path = f"{name}/{action['path']}"
        if path not in there:
            yield Problem(kind="missing", path=path, detail=f"version {table.version()} of the table needs it")
        elif there[path] != action["size_bytes"]:
            detail = f"{there[path]} bytes, the table's log says {action['size_bytes']}"
            yield Problem(kind="size", path=path, detail=detail)
        elif deep:
            yield from _check_content(dataset.store, path, action)


def _check_content(store: Store, path: str, action: Mapping[str, Any]) -> Iterator[Problem]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = store.read(path)
    except StoreError as error:
        yield Problem(kind="unreadable", path=path, detail=error.message)
        return
    named = hash_in_name(path)
    digest = hashlib.sha256(data).hexdigest()
    if named and not digest.startswith(named):
        yield Problem(kind="hash", path=path, detail=f"its content has SHA-256 {digest[:16]}…")
        return
    try:
        metadata = pq.read_metadata(pa.BufferReader(data))
    except (OSError, pa.ArrowException) as error:
        yield Problem(kind="unreadable", path=path, detail=str(error).splitlines()[0])
        return
    if named:
        for told, found in _log_against(action, bounds_of(metadata)):
            yield Problem(kind="table", path=path, detail=f"the table's log says {told}, the file has {found}")


def _log_against(action: Mapping[str, Any], bounds: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if action["num_records"] != bounds["numRecords"]:
        yield f"{action['num_records']} rows", f"{bounds['numRecords']}"
    for side, key in (("min", "minValues"), ("max", "maxValues")):
        for name, value in bounds[key].items():
            told = action.get(f"{side}.{name}")
            if told is not None and told != value:
                yield f"{side} of {name} is {told!r}", f"{value!r}"
    partition = partition_of(action)
    folders = PurePosixPath(action["path"]).parts[:-1]
    if partition and sorted(folders) != sorted(partition_folders(partition)):
        yield f"partition {', '.join(partition_folders(partition))}", "/".join(folders)
