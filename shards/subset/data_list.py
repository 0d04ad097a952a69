"""The data list: which image came from which raw file, for every sample of a dataset or a lock."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shards.dataset.columns import column_kinds, column_table
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError
from shards.files import json_text
from shards.schema import INDEX_COLUMNS
from shards.subset.chosen import run, samples
from shards.subset.finding import find
from shards.subset.keys import keys_of
from shards.subset.lock import Lock, is_lock

TSV_COLUMNS = ("file", "source", "raw_path", "raw_frame", "pixel_sha256")


def export_list(url: str | Path, *, format_: Literal["tsv", "jsonl"], dataset: str | None = None) -> Iterator[str]:
    """The lines of a data list, sorted by key.

    Args:
        url: A lock file (compared with its dataset first) or a dataset.
        format_: `tsv` gives `<key>.<extension>`, source, raw path, frame and pixel hash under a header line, quoted
            where a path holds a tab, a quote or a line break, as `biovfm ingest --only-listed` reads it; `jsonl` gives
            one object per sample with every column of the index and of the user's own.
        dataset: Where the lock's dataset lies now; where the lock says, without it.

    Raises:
        SubsetError: The lock does not match its dataset.
        ConfigError: `dataset` is given beside a dataset.
    """
    rows = open_rows(url, dataset=dataset)
    line = _tsv if format_ == "tsv" else _json
    if format_ == "tsv":
        yield _row(TSV_COLUMNS)
    own = list(column_kinds(column_table(rows.dataset, rows.columns_version))) if format_ == "jsonl" else []
    asked = f"{rows.where} {' '.join(own)}"
    version = rows.columns_version
    with samples(rows.dataset, rows.version, dictionaries=(), predicate=asked, columns_version=version) as database:
        columns = ", ".join([*INDEX_COLUMNS, *own])
        run(database, f"CREATE TEMP TABLE listed AS SELECT {columns} FROM samples WHERE {rows.where}")  # noqa: S608
        for batch in database.sql("SELECT * FROM listed ORDER BY key").to_arrow_reader(1 << 14):
            for row in batch.to_pylist():
                yield line(row)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRows:
    """Where the rows of a lock's samples, or of all samples of a dataset, lie.

    Attributes:
        dataset: The dataset.
        version: Index version.
        where: The SQL predicate that picks them.
        columns_version: Version of the user's own columns; the newest where None.
    """

    dataset: Dataset
    version: int
    where: str = "TRUE"
    columns_version: int | None = None


def open_rows(url: str | Path, *, dataset: str | None = None) -> OpenRows:
    """The rows of a lock file's samples, or of all samples of a dataset."""
    if is_lock(url):
        lock = Lock.read(url)
        found = find(lock, dataset, keys=keys_of(lock, Path(url)))
        return OpenRows(
            dataset=found.dataset, version=found.version, where=found.where, columns_version=found.columns_version
        )
    if dataset is not None:
        raise ConfigError(f"{url} is a dataset itself", hint="give --dataset beside a lock file only")
    opened = Dataset.open(str(url))
    return OpenRows(dataset=opened, version=opened.version())


def _json(row: dict[str, Any]) -> str:
    return json_text(dict(sorted(row.items()))) + "\n"


def _tsv(row: dict[str, Any]) -> str:
    return _row([f"{row['key']}.{row['extension']}", *(row[name] for name in TSV_COLUMNS[1:])])


def _row(values: Any) -> str:
    line = io.StringIO()
    csv.writer(line, delimiter="\t", lineterminator="\n").writerow(values)
    return line.getvalue()
