"""Sources that are a list: a CSV, TSV or Parquet file with a row a raw file.

The column `path` (or `url`) is a path below the list's own folder, or a whole URL. The columns `modality`, `group`,
`licence` and `anatomy` may say more of each file. Rows are taken in the order of their paths, each path once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from ingest.raw.items import RawItem, RawRoot, Stated
from shards.errors import SourceError

_NAMES = ("path", "url", "file", "raw_path")


def listed_items(root: RawRoot) -> Iterator[RawItem]:
    """The items of the list that `root` points at.

    Raises:
        SourceError: The raw URL is no list, or has no column of paths.
    """
    files = [path for path, _ in root.walk()]
    if len(files) != 1:
        raise SourceError(f"{root.url} is no list file", hint="give a .csv, .tsv or .parquet file as the raw URL")
    rows: dict[str, Stated] = {}
    for row in _rows(root, files[0]):
        path, stated = _entry(root, row)
        rows.setdefault(path, stated)
    for path, stated in sorted(rows.items()):
        yield _item(root, path, stated)


def _rows(root: RawRoot, path: str) -> Iterator[Mapping[str, Any]]:
    with root.open(path) as stream:
        if path.lower().endswith(".parquet"):
            import pyarrow.parquet as pq

            for batch in pq.ParquetFile(stream).iter_batches():
                yield from batch.to_pylist()
            return
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        yield from csv.DictReader(text, delimiter="\t" if path.lower().endswith(".tsv") else ",")


def _entry(root: RawRoot, row: Mapping[str, Any]) -> tuple[str, Stated]:
    name = next((name for name in _NAMES if row.get(name)), None)
    if name is None:
        raise SourceError(f"{root.url} has a row without `path`", hint=f"name a column one of {', '.join(_NAMES)}")
    return str(row[name]), Stated(*(str(row.get(field) or "") for field in Stated._fields))


def _item(root: RawRoot, path: str, stated: Stated) -> RawItem:
    if "://" in path:
        return RawItem(path=path, kind="url", stated=stated)
    if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
        return RawItem(path=path, kind="reject", detail="path_traversal", stated=stated)
    try:
        return RawItem(path=path, size=root.size(path), stated=stated)
    except OSError as error:
        return RawItem(path=path, kind="reject", detail=f"unreadable:{type(error).__name__}", stated=stated)
