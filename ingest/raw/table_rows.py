"""Rows of a table in any of the formats that sources ship: CSV, TSV, Parquet, JSON, JSON lines, a name a line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

Row = Mapping[str, Any]

NAME_COLUMN = ""
"""The only column of text that holds a name a line."""


def table_rows(stream: BinaryIO, name: str, *, records: str = "", plain: bool = False) -> Iterator[Row]:
    """The rows of a table, one after the other; JSON is read whole.

    Args:
        stream: The table's bytes.
        name: Its file name: the extension says the format.
        records: JSON: the way to the records (`ingest.source.layout.Table`).
        plain: Text with a name a line.

    Raises:
        ValueError: It is no such table.
    """
    extension = name.lower().rpartition(".")[2]
    if extension == "parquet" and not plain:
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(stream).iter_batches():
            yield from batch.to_pylist()
        return
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _rows_of_text(text, extension, records, plain=plain)
    finally:
        text.detach()  # the stream is its opener's to close


def _rows_of_text(text: io.TextIOWrapper, extension: str, records: str, *, plain: bool) -> Iterator[Row]:
    if plain:
        yield from ({NAME_COLUMN: line.strip()} for line in text if line.strip())
    elif extension == "jsonl":
        yield from (json.loads(line) for line in text if line.strip())
    elif extension == "json":
        yield from _records(json.load(text), records.split(".") if records else ["*"], ())
    else:
        yield from _separated(text, "\t" if extension == "tsv" else "")


def _separated(text: io.TextIOWrapper, delimiter: str) -> Iterator[Row]:
    """Rows of separated values; without a delimiter it is the one that the header has most of."""
    header = text.readline()
    found = delimiter or max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=found), [])
    yield from csv.DictReader(text, fieldnames=[name.strip() for name in names], delimiter=found)


def _records(value: Any, way: Sequence[str], passed: tuple[str, ...]) -> Iterator[Row]:
    """What lies at the end of a way through nested mappings and lists; `*` takes every entry."""
    if not way:
        if isinstance(value, dict):
            yield {**value, **{f"@{number}": name for number, name in enumerate(passed, 1)}}
        elif isinstance(value, str):
            yield {NAME_COLUMN: value, **{f"@{number}": name for number, name in enumerate(passed, 1)}}
        return
    step, rest = way[0], way[1:]
    if step != "*":
        if isinstance(value, dict) and step in value:
            yield from _records(value[step], rest, passed)
        return
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, entry in entries:
        yield from _records(entry, rest, (*passed, str(name)))
