"""A table of the user's own, column by column: CSV as hospitals' programs write it, or Parquet.

Text is UTF-8 or UTF-16, else a code page: Windows-1252 unless told. Separators are commas, semicolons, tabs or bars.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from ingest.raw.table_rows import CODE_PAGE, encoding_of, read_header
from shards.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

_NAME_ALL: Final = "give each column a name in the first line"
_NUMBERS: Final = "\0 row numbers"
"""Stands for the name of a first column that has none; no header holds a zero byte."""
_ROW_NAMES: Final = re.compile(r"__index_level_\d+__")
"""Names that a data frame's row names get in Parquet."""
_CHUNK_BYTES: Final = 1 << 20
_CHUNK_ROWS: Final = 1 << 16
_TEXT: Final = frozenset({"csv", "tsv", "tab", "txt"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenTable:
    """A table as it was given.

    Attributes:
        path: The file.
        columns: Header → values, in the order of the file; text of CSV, whatever the type of Parquet.
        num_rows: Rows.
        encoding: Of the text; empty for Parquet.
    """

    path: Path
    columns: Mapping[str, pa.ChunkedArray]
    num_rows: int
    encoding: str = ""


def read_given(path: Path, *, encoding: str = "") -> GivenTable:
    """Read a table.

    Args:
        path: A CSV, TSV or Parquet file.
        encoding: Of the text, as Python names it; found out without it.

    Raises:
        ConfigError: The file cannot be read, or is no such table.
    """
    extension = path.name.lower().rpartition(".")[2]
    try:
        if extension == "parquet":
            return _read_parquet(path)
        if extension not in _TEXT:
            raise ConfigError(f"{path} is neither CSV nor Parquet", hint="save it as .csv, .tsv or .parquet")
        with path.open("rb") as stream:
            found = encoding or _text_encoding(stream)
            with io.TextIOWrapper(stream, encoding=found, newline="") as text:
                return _read_text(path, text, found, extension)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or 'damaged'}", hint="check the path") from error
    except LookupError as error:
        raise ConfigError(f"--encoding {encoding}: there is no such encoding", hint="for example cp1250") from error
    except UnicodeError as error:
        raise ConfigError(f"{path} is not {encoding or found}", hint="name its encoding with --encoding") from error
    except csv.Error as error:
        raise ConfigError(f"{path} is no table of text: {error}", hint="save it as CSV UTF-8, or as Parquet") from error


def _read_parquet(path: Path) -> GivenTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise ConfigError(f"{path} is no Parquet file that can be read", hint="write it again") from error
    _check_headers(path, table.column_names)
    return GivenTable(
        path=path,
        columns={name.strip(): table[name] for name in table.column_names if not _ROW_NAMES.fullmatch(name)},
        num_rows=table.num_rows,
    )


def _text_encoding(stream: BinaryIO) -> str:
    """UTF-16 or UTF-8 where the whole file is that, else the code page."""
    found = encoding_of(stream)
    if found == "utf-8-sig":
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while chunk := stream.read(_CHUNK_BYTES):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            found = CODE_PAGE
    stream.seek(0)
    return found


def _read_text(path: Path, text: TextIO, encoding: str, extension: str) -> GivenTable:
    import pyarrow as pa

    headers, delimiter = read_header(text, extension)
    num_separated = len(headers)
    while headers and not headers[-1]:  # spreadsheets write separators of empty columns
        headers.pop()
    if headers and not headers[0]:
        headers[0] = _NUMBERS
    _check_headers(path, headers)
    chunks: list[list[pa.Array]] = [[] for _ in headers]
    waiting: list[list[str]] = []

    def flush() -> None:
        for number, values in enumerate(zip(*waiting, strict=True) if waiting else ()):
            chunks[number].append(pa.array(values, pa.string()))
        waiting.clear()

    num_rows = 0
    for cells in csv.reader(text, delimiter=delimiter):
        if not any(cell.strip() for cell in cells):
            continue
        num_rows += 1
        if any(cell.strip() for cell in cells[len(headers) : num_separated]):
            raise ConfigError(f"{path} has a column without a name", hint=_NAME_ALL)
        waiting.append(_fitted(path, cells, len(headers), num_rows))
        if len(waiting) == _CHUNK_ROWS:
            flush()
    flush()
    if not num_rows:
        raise ConfigError(f"{path} has no rows", hint="give a table with a header line and a line per row")
    columns = {name: pa.chunked_array(parts, pa.string()) for name, parts in zip(headers, chunks, strict=True)}
    if _NUMBERS in columns:
        _check_numbers(path, columns.pop(_NUMBERS))
    return GivenTable(path=path, columns=columns, num_rows=num_rows, encoding=encoding)


def _fitted(path: Path, cells: list[str], width: int, number: int) -> list[str]:
    """The cells of a row, as many as the header has; empty ones may be missing or too many at the end."""
    if any(cell.strip() for cell in cells[width:]):
        raise ConfigError(
            f"row {number} of {path} has {len(cells)} cells, the header {width}",
            hint="quote cells that hold the separator",
        )
    return cells[:width] + [""] * (width - len(cells))


def _check_numbers(path: Path, values: pa.ChunkedArray) -> None:
    """A first column without a name is that of row numbers, as data frames are written."""
    first = {"0": 0, "1": 1}.get(values[0].as_py().strip())
    if first is None or any(value.strip() != str(row) for row, value in enumerate(values.to_pylist(), first)):
        raise ConfigError(f"{path} has a column without a name", hint=_NAME_ALL)


def _check_headers(path: Path, headers: Sequence[str]) -> None:
    plain = [name.strip() for name in headers]
    if not all(plain):
        raise ConfigError(f"{path} has a column without a name", hint=_NAME_ALL)
    if doubled := sorted({name for name in plain if plain.count(name) > 1}):
        raise ConfigError(f"{path} has two columns {doubled[0]}", hint="give each column another name")
