"""The data list: which image came from which raw file, for every sample of a dataset or a lock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from shards.dataset.dataset import Dataset
from shards.schema import INDEX_COLUMNS
from shards.subset.lock import Lock, verify


def export_list(url: str, *, format_: Literal["tsv", "jsonl"]) -> Iterator[str]:
    """The lines of a data list, sorted by key.

    Args:
        url: A lock file (verified first) or a dataset.
        format_: `tsv` gives `<key>.<extension>`, tab, raw path, with `#<frame>` where there is one, under a header
            line; `jsonl` gives one object a sample with every index column.
    """
    if url.endswith((".yaml", ".yml")):
        lock = Lock.read(Path(url))
        dataset = Dataset.open(lock.dataset)
        verify(lock, dataset)
        where, version = lock.predicate(), lock.index_version
    else:
        dataset = Dataset.open(url)
        where, version = "TRUE", dataset.version()
    with dataset.database("samples", version=version) as database:
        if format_ == "tsv":
            yield "file\traw_path\n"
        rows = database.sql(
            f"SELECT {', '.join(INDEX_COLUMNS)} FROM samples WHERE {where} ORDER BY key"  # noqa: S608
        )
        for batch in rows.to_arrow_reader(1 << 14):
            for row in batch.to_pylist():
                yield _tsv(row) if format_ == "tsv" else json.dumps(row, sort_keys=True) + "\n"


def _tsv(row: dict[str, object]) -> str:
    frame = f"#{row['raw_frame']}" if row["raw_frame"] else ""
    path = f"{row['raw_path']}{frame}".replace("\t", "%09").replace("\n", "%0A")
    return f"{row['key']}.{row['extension']}\t{path}\n"
