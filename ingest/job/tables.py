"""Reads the tables of a source: which rows count, what they say, and what in them names files."""

from __future__ import annotations

import difflib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ingest.columns.own_rows import Cells, OwnRows, hash_key
from ingest.columns.stated_words import USES, StatedWords, WordCounter
from ingest.job.join import Join, keys_of_file, shortened
from ingest.job.select import path_of
from ingest.job.table_match import Tally
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawItem, RejectError, Stated
from ingest.raw.root import RawRoot
from ingest.raw.table_rows import NAME_COLUMN, Row, plain_text, table_rows
from ingest.settings import LimitSettings
from ingest.source.globs import any_of
from ingest.source.layout import Table
from shards.errors import SourceError


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
    reading = _Reading(table, files[0].inner_path)
    for item in files:
        for row in _rows(root, table, item, limits):
            reading.add(row)
    return reading.done()


class _Reading:
    """Collects the rows of a table that count.

    Args:
        table: How it is joined.
        name: Its path.
    """

    def __init__(self, table: Table, name: str) -> None:
        self._table, self._name = table, name
        self._keys, self._folded = array("Q"), array("Q")
        self._numbers, self._key_rows = array("I"), array("I")
        self._known: dict[Stated, int] = {}
        self._statements: list[Stated] = []
        self._saying: list[int] = []  # rows that make each statement
        self._frames: list[Stated] = []  # equal ones are one object: a file may have a quarter of a million frames
        self._columns: dict[str, None] = {}
        self._cells = Cells(table.columns, table.values) if table.columns else None
        self._num_rows = 0

    def add(self, row: Row) -> None:
        """Another row, whether it counts or not."""
        table = self._table
        if not self._columns:
            self._columns = dict.fromkeys(str(name) for name in row if name)
            if self._cells is not None:
                self._cells.check(self._columns, where=self._name, complete=not table.records)
        if not all(_word(row.get(column)) in values for column, values in table.where.items()):
            return
        number = self._statement(_statement(row, table))
        keys = () if table.per_frame else tuple(_keys_of_row(row, table))
        if table.per_frame:
            self._frames.append(self._statements[number])
        for key in keys:
            small = key.casefold()
            self._keys.append(hash_key(key))
            self._folded.append(self._keys[-1] if small == key else hash_key(small))
            self._numbers.append(number)
            self._key_rows.append(self._num_rows)
        if self._cells is not None:
            self._cells.add(row, keys)
        self._num_rows += 1

    def _statement(self, stated: Stated) -> int:
        """The number of a statement that another row makes."""
        number = self._known.setdefault(stated, len(self._known))
        if number == len(self._statements):
            self._statements.append(stated)
            self._saying.append(0)
        self._saying[number] += 1
        return number

    def done(self) -> Join:
        """The table, once all rows have been seen.

        Raises:
            SourceError: It selects nothing.
        """
        table = self._table
        if not self._keys and table.select == "listed":
            where = ", ".join(f"{name} {'/'.join(values)}" for name, values in table.where.items())
            raise SourceError(
                f"{self._name} lists no file{f' with {where}' if where else ''}",
                hint="get the complete table from the source",
            )
        taken = {*table.keys, *table.stating, *(column.header for column in table.columns.values())}
        order = np.argsort(np.frombuffer(self._keys, np.uint64), kind="stable")
        return Join(
            table=table,
            of=any_of(table.of) if table.of else None,
            keys=_in_order(self._keys, order),
            numbers=_in_order(self._numbers, order),
            key_rows=_in_order(self._key_rows, order),
            folded=_in_order(self._folded, order),
            statements=self._statements,
            tally=Tally(states=bytearray(self._num_rows)),
            per_frame=tuple(self._frames),
            name=self._name,
            unused=tuple(name for name in map(plain_text, self._columns) if name not in taken),
            own=None if self._cells is None else _own_rows(self._cells, table),
            words=self._words(),
        )

    def _words(self) -> Sequence[StatedWords]:
        """What the rows say in words that are stored."""
        counter = WordCounter()
        for use in USES:
            header = getattr(self._table, use)
            for stated, num_rows in zip(self._statements, self._saying, strict=True) if header else ():
                counter.add(use, header, getattr(stated, use), num_rows)
        return counter.done(self._name, allow=self._table.allow, of_list=False)


def _in_order(values: array[int], order: np.ndarray) -> array[int]:
    """The values in another order."""
    return array(values.typecode, np.frombuffer(values, values.typecode)[order].tobytes())


def _own_rows(cells: Cells, table: Table) -> OwnRows:
    """What a table says in columns of the user's own; a row that names one file is about that file alone."""
    of = any_of(table.of) if table.of else None

    def keys_of(item: RawItem) -> Iterator[str]:
        path = path_of(item)
        if of is None or of.fullmatch(path):
            yield from ("",) if table.per_frame else keys_of_file(path, table)

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
                yield shortened(key.removeprefix("./"), table)
