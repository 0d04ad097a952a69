"""Rows of a table in any of the formats that sources ship: CSV, TSV, Parquet, JSON, JSON lines, a name a line.

Text is UTF-8 or UTF-16, as spreadsheets save it. Bytes that are neither are kept as they are, so that names in an old
code page still fit files that carry the same bytes in their names.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, TextIO

Row = Mapping[str, Any]

_DELIMITERS: Final = ",;\t|"
_STATED_DELIMITER: Final = re.compile(r"\"?sep=([,;|])\"?", re.IGNORECASE)
_QUOTED: Final = re.compile(r'(?:(?<=[,;\t|])|^) *"(?:[^"]|"")*"(?= *(?:[,;\t|\r\n]|$))')
_UNCLOSED: Final = re.compile(r'(?:[,;\t|]|^) *"')
_MOST_HEADER_LINES: Final = 20
_MOST_FIELD_BYTES: Final = 16 << 20
_HEAD_BYTES: Final = 4

CODE_PAGE: Final = "cp1252"
"""Of text that is no UTF-8."""
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
    text = io.TextIOWrapper(stream, encoding=encoding_of(stream), errors="surrogateescape", newline="")
    csv.field_size_limit(_MOST_FIELD_BYTES)
    try:
        yield from _rows_of_text(text, extension, records, plain=plain)
    except (csv.Error, RecursionError) as error:
        raise ValueError(str(error)) from error
    finally:
        text.detach()  # the stream is its opener's to close


def encoding_of(stream: BinaryIO) -> str:
    """UTF-16 where its mark is there, or where every other byte of the beginning is zero; else UTF-8."""
    head = stream.read(_HEAD_BYTES)
    stream.seek(-len(head), io.SEEK_CUR)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) == _HEAD_BYTES and head[1] == head[3] == 0 != head[0]:
        return "utf-16-le"
    if len(head) == _HEAD_BYTES and head[0] == head[2] == 0 != head[1]:
        return "utf-16-be"
    return "utf-8-sig"


def _rows_of_text(text: io.TextIOWrapper, extension: str, records: str, *, plain: bool) -> Iterator[Row]:
    if plain:
        yield from ({NAME_COLUMN: line.strip()} for line in text if line.strip())
    elif extension == "jsonl":
        yield from (json.loads(line) for line in text if line.strip())
    elif extension == "json":
        yield from _records(json.load(text), records.split(".") if records else ["*"], ())
    else:
        yield from _separated(text, extension)


def _separated(text: TextIO, extension: str) -> Iterator[Row]:
    names, delimiter = read_header(text, extension)
    yield from csv.DictReader(text, fieldnames=names, delimiter=delimiter)


def plain_text(value: Any) -> str:
    """A value as text; bytes that are no UTF-8 are read in the code page of most spreadsheets."""
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode(CODE_PAGE, "replace")
    return text


def read_header(text: TextIO, extension: str) -> tuple[list[str], str]:
    """The column names of separated values, and the delimiter.

    The delimiter is what a first line `sep=;` says, as spreadsheets write it, else that of the extension, else the one
    that the header has most of. What is left of the text are the rows.
    """
    header = _header_line(text)
    stated = _STATED_DELIMITER.fullmatch(header.strip())
    if stated:
        return _names(_header_line(text), stated[1]), stated[1]
    preferred = {"tsv": "\t", "tab": "\t"}.get(extension, "")
    plain = _QUOTED.sub("", header)
    found = preferred if preferred and preferred in plain else max(_DELIMITERS, key=plain.count)
    return _names(header, found), found


def _header_line(text: TextIO) -> str:
    """The first line that says something, with the lines that a quoted name goes on in."""
    line = text.readline()
    while line and not line.strip():
        line = text.readline()
    for _ in range(_MOST_HEADER_LINES):
        if not _UNCLOSED.search(_QUOTED.sub("", line)) or not (more := text.readline()):
            break
        line += more
    return line


def _names(header: str, delimiter: str) -> list[str]:
    cells = next(csv.reader(io.StringIO(header, newline=""), delimiter=delimiter), [])
    return [" ".join(name.split()) if "\n" in name or "\r" in name else name.strip() for name in cells]


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
