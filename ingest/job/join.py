"""What the tables of a source say of its files, and which files they select.

A table of millions of rows is kept as sorted 64-bit hashes of its keys and, for each, the number of one of the few
different statements: some 12 bytes per row.
"""

from __future__ import annotations

import difflib
import re
from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from ingest.columns.own_rows import Cells, OwnRows, hash_key
from ingest.job.leftovers import Leftovers
from ingest.job.select import path_of
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawItem, RejectError, Stated
from ingest.raw.root import RawRoot
from ingest.raw.table_rows import NAME_COLUMN, Row, plain_text, table_rows
from ingest.readers import EXTENSIONS
from ingest.settings import LimitSettings
from ingest.source.globs import any_of
from ingest.source.layout import Table
from shards.errors import SourceError

UNLISTED: Final = "unlisted"
_FORMATS = "|".join(sorted({extension for names in EXTENSIONS.values() for extension in names}))
_KNOWN = re.compile(rf"(?:\.nii)?(?:\.(?:{_FORMATS}))?(?:\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """One table, ready to be asked.

    Attributes:
        table: How it is joined.
        of: What it says something of; None: all files.
        keys: Sorted hashes of the keys.
        numbers: For each key, the number of its statement.
        statements: The different statements.
        per_frame: The statement of each frame, where the table goes by frames.
        rows: How many rows count.
        name: Path of the table; of several files, that of the first.
        unused: Its columns of which nothing is taken.
        own: What it says in columns of the user's own.
    """

    table: Table
    of: re.Pattern[str] | None
    keys: array[int]
    numbers: array[int]
    statements: Sequence[Stated]
    per_frame: tuple[Stated, ...] = ()
    rows: int = 0
    name: str = ""
    unused: tuple[str, ...] = ()
    own: OwnRows | None = None

    def __call__(self, item: RawItem) -> RawItem | None:
        """The file with what the table says of it; None where the table leaves it out."""
        path = path_of(item)
        if self.of is not None and not self.of.fullmatch(path):
            return item
        if self.table.per_frame:
            return replace(item, per_frame=self.per_frame)
        stated = self._stated(path)
        if self.table.select != "all" and (stated is not None) != (self.table.select == "listed"):
            return None
        return item if stated is None else replace(item, stated=_merged(item.stated, stated))

    def _stated(self, path: str) -> Stated | None:
        for key in _keys_of_file(path, self.table):
            hashed = hash_key(key)
            at = bisect_left(self.keys, hashed)
            if at < len(self.keys) and self.keys[at] == hashed:
                return self.statements[self.numbers[at]]
        return None


def join_all(item: RawItem, joins: Sequence[Join]) -> RawItem | None:
    """The file with what all tables say of it; None where one of them leaves it out."""
    for join in joins:
        joined = join(item)
        if joined is None:
            return None
        item = joined
    return item


def joined_files(
    items: Iterable[RawItem], joins: Sequence[Join], leftovers: Leftovers, *, spare: Container[int]
) -> Iterator[RawItem]:
    """The files with what all tables say of them, in order.

    Args:
        items: The files of all parts.
        joins: The tables.
        leftovers: Gets what the tables leave out, and files of spare parts.
        spare: Numbers of the parts that hold the same images once more.
    """
    for item in items:
        archive = item.path if item.member else ""
        closed = item.kind in ("reject", "unavailable") and not item.member
        if item.part in spare:
            leftovers.add("copies", item.inner_path, archive)
        elif joined := item if closed else join_all(item, joins):
            yield joined
        else:
            leftovers.add(UNLISTED, item.inner_path, archive)


def read_tables(
    root: RawRoot,
    tables: Sequence[Table],
    found: Mapping[int, Sequence[RawItem]],
    limits: LimitSettings,
    missing: list[str] | None = None,
) -> list[Join]:
    """All tables of a source.

    Args:
        root: The raw URL.
        tables: The layout's tables.
        found: Number of the table → the files that it is.
        limits: Guards against absurd files.
        missing: Gets what is wrong, which is then no error.

    Raises:
        SourceError: A table that the layout needs is not there, cannot be read, lacks a column, or selects nothing.
    """
    joins = []
    for number, table in enumerate(tables):
        try:
            joins += _joined(root, table, found.get(number, ()), limits)
        except SourceError as error:
            if missing is None:
                raise
            missing.append(error.message)
    return joins


def _joined(root: RawRoot, table: Table, files: Sequence[RawItem], limits: LimitSettings) -> list[Join]:
    if files:
        return [read_table(root, table, files, limits)]
    if table.optional:
        return []
    hint = "get it from the source: it says which files count, or what they are"
    raise SourceError(f"{root.url} lacks the table {table.path}", hint=hint)


def read_table(root: RawRoot, table: Table, files: Sequence[RawItem], limits: LimitSettings) -> Join:
    """One table out of one or more files.

    Raises:
        SourceError: It cannot be read, lacks a column, or selects nothing.
    """
    if table.per_frame and len(files) > 1:
        names = ", ".join(item.inner_path for item in files)
        raise SourceError(
            f"{table.path} is more than one file: {names}", hint="keep the one that belongs to the images"
        )
    keys, numbers, known = array("Q"), array("I"), dict[Stated, int]()
    statements: list[Stated] = []
    frames: list[Stated] = []  # equal ones are one object: a file may have a quarter of a million frames
    columns: dict[str, None] = {}
    cells = Cells(table.columns, table.values) if table.columns else None
    for row in (row for item in files for row in _rows(root, table, item, limits)):
        if not columns:
            columns = dict.fromkeys(str(name) for name in row if name)
            if cells is not None:
                cells.check(columns, where=files[0].inner_path, complete=not table.records)
        if not all(_word(row.get(column)) in values for column, values in table.where.items()):
            continue
        stated = _statement(row, table)
        number = known.setdefault(stated, len(known))
        if number == len(statements):
            statements.append(stated)
        named = () if table.per_frame else tuple(_keys_of_row(row, table))
        if table.per_frame:
            frames.append(statements[number])
        for key in named:
            keys.append(hash_key(key))
            numbers.append(number)
        if cells is not None:
            cells.add(row, named)
    if not keys and table.select == "listed":
        where = " with " + ", ".join(f"{name} {'/'.join(v)}" for name, v in table.where.items()) if table.where else ""
        raise SourceError(f"{files[0].inner_path} lists no file{where}", hint="get the complete table from the source")
    taken = {*table.keys, *table.stating, *(column.header for column in table.columns.values())}
    order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable") if keys else np.zeros(0, np.int64)
    of = any_of(table.of) if table.of else None
    return Join(
        table=table,
        of=of,
        keys=array("Q", np.frombuffer(keys, np.uint64)[order].tobytes() if keys else b""),
        numbers=array("I", np.frombuffer(numbers, np.uint32)[order].tobytes() if keys else b""),
        statements=statements,
        per_frame=tuple(frames),
        rows=len(keys) or len(frames),
        name=files[0].inner_path,
        unused=tuple(name for name in map(plain_text, columns) if name not in taken),
        own=None if cells is None else _own_rows(cells, table, of),
    )


def _own_rows(cells: Cells, table: Table, of: re.Pattern[str] | None) -> OwnRows:
    """What a table says in columns of the user's own; a row that names one file is about that file alone."""

    def keys_of(item: RawItem) -> Iterator[str]:
        path = path_of(item)
        if of is None or of.fullmatch(path):
            yield from ("",) if table.per_frame else _keys_of_file(path, table)

    many = table.match == "pattern" or len(table.keys) > 1 or bool(table.records)
    return cells.done("number" if table.per_frame else "file", many=many, keys_of=keys_of)


def _rows(root: RawRoot, table: Table, item: RawItem, limits: LimitSettings) -> Iterator[Row]:
    plain = not table.keys and not table.per_frame and not table.records
    try:
        for _, raw in open_items(root, [item], limits):
            with raw.open() as stream:
                for number, row in enumerate(table_rows(stream, raw.name, records=table.records, plain=plain)):
                    if number == 0:
                        names = [plain_text(name) for name in row]
                        _check_columns(row, names, table, item)
                    yield row
    except (RejectError, ValueError, OSError) as error:
        reason = error.reason if isinstance(error, RejectError) else type(error).__name__
        raise SourceError(f"cannot read the table {item.inner_path}: {reason}", hint="download it again") from error


def _check_columns(row: Row, names: Sequence[str], table: Table, item: RawItem) -> None:
    needed = (*table.keys, *table.stating)
    missing = [name for name in needed if name not in row]
    if missing and not table.records:  # records of JSON may lack what they have nothing to say of
        near = difflib.get_close_matches(missing[0], names, 1)
        there = f"did you mean {near[0]}?" if near else "it has " + ", ".join(names[:8])
        raise SourceError(f"{item.inner_path} has no column {missing[0]}", hint=there)


def _statement(row: Row, table: Table) -> Stated:
    def word(column: str) -> str:
        said = _word(row.get(column)) if column else ""
        return table.values.get(column, {}).get(said, said)

    return Stated(
        modality=word(table.modality),
        group=next((said for column in table.group if (said := word(column))), ""),
        licence=word(table.licence),
        anatomy=word(table.anatomy),
        label=word(table.label),
    )


def _merged(first: Stated, second: Stated) -> Stated:
    """What the first says, and where it says nothing, the second."""
    return Stated(*(one or other for one, other in zip(first, second, strict=True)))


def _word(value: Any) -> str:
    """A cell as text; of a list its first entry."""
    if isinstance(value, list):
        value = value[0] if value else None
    return "" if value is None else str(value).strip()


def _keys_of_row(row: Row, table: Table) -> Iterator[str]:
    for column in table.keys or (NAME_COLUMN,):
        value = row.get(column)
        for entry in value if isinstance(value, list) else [value]:
            key = _word(entry).replace("\\", "/")
            if key:
                yield _shortened(key.removeprefix("./"), table)


def _keys_of_file(path: str, table: Table) -> Iterator[str]:
    if table.match == "pattern":
        found = re.search(table.pattern, path)
        if found:
            yield found[1] if found.groups() else found[0]
    elif table.match == "path":
        at = 0
        while at >= 0:
            yield path[at:]
            at = path.find("/", at) + 1 or -1
    else:
        yield _shortened(path, table)


def _shortened(path: str, table: Table) -> str:
    name = path.rpartition("/")[2] if table.match in ("name", "stem") else path
    return _KNOWN.sub("", name) if table.match == "stem" else name
