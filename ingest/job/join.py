"""What the tables of a source say of its files, and which files they select; `ingest.job.tables` reads them.

A table of millions of rows is kept as sorted 64-bit hashes of its keys, those of the keys in small letters and, for
each, the number of its row and that of one of the few different statements: some 25 bytes per row.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ingest.columns.own_rows import OwnRows, hash_key
from ingest.columns.stated_words import StatedWords
from ingest.job.leftovers import Leftovers
from ingest.job.select import path_of
from ingest.job.table_match import TableMatch, Tally
from ingest.raw.items import RawItem, Stated
from ingest.readers import EXTENSIONS
from ingest.source.layout import Table

UNLISTED: Final = "unlisted"
_FORMATS = "|".join(sorted({extension for names in EXTENSIONS.values() for extension in names}))
_KNOWN = re.compile(rf"(?:\.nii)?(?:\.(?:{_FORMATS}))?(?:\.gz)?$", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Told:
    """What the tables of a source tell, or the list that it is; complete once all files have been taken.

    Attributes:
        joins: The tables.
        own: What they say in columns of the user's own.
        words: What they say in words that are stored.
    """

    joins: list[Join] = field(default_factory=list)
    own: list[OwnRows] = field(default_factory=list)
    words: list[StatedWords] = field(default_factory=list)

    def add(self, joins: Iterable[Join]) -> None:
        """More tables."""
        for join in joins:
            self.joins.append(join)
            self.own += [] if join.own is None else [join.own]
            self.words += join.words

    @property
    def matches(self) -> list[TableMatch]:
        """How well the tables fit the files."""
        return [join.match for join in self.joins]


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """One table, ready to be asked.

    Attributes:
        table: How it is joined.
        of: What it says something of; None: all files.
        keys: Sorted hashes of the keys.
        numbers: For each key, the number of its statement.
        key_rows: For each key, the number of its row, from 0.
        folded: For each key, the hash of the key in small letters.
        statements: The different statements.
        per_frame: The statement of each frame, where the table goes by frames.
        tally: Counts the rows that are about files; it knows how many rows count.
        name: Path of the table; of several files, that of the first.
        unused: Its columns of which nothing is taken.
        own: What it says in columns of the user's own.
        words: What it says in words that are stored.
    """

    table: Table
    of: re.Pattern[str] | None
    keys: array[int]
    numbers: array[int]
    key_rows: array[int]
    folded: array[int]
    statements: Sequence[Stated]
    tally: Tally
    per_frame: tuple[Stated, ...] = ()
    name: str = ""
    unused: tuple[str, ...] = ()
    own: OwnRows | None = None
    words: Sequence[StatedWords] = ()

    @property
    def rows(self) -> int:
        """How many rows count."""
        return len(self.tally.states)

    @property
    def match(self) -> TableMatch:
        """How well it fits the files that it was asked about."""
        return self.tally.done(self.table, self.name, exact=self.keys, folded=self.folded, rows=self.key_rows)

    def about(self, path: str) -> range | None:
        """Which of the keys name a file; None where the table says nothing of such files."""
        if self.of is not None and not self.of.fullmatch(path):
            return None
        if self.table.per_frame:
            self.tally.match_all()
            return range(0)
        for key in keys_of_file(path, self.table):
            hashed = hash_key(key)
            first = bisect_left(self.keys, hashed)
            if first < len(self.keys) and self.keys[first] == hashed:
                found = range(first, bisect_right(self.keys, hashed, first))
                self._tally_rows(found)
                return found
        return range(0)

    def _tally_rows(self, about: range) -> None:
        """The first row about a file counts; what another one says is compared with it."""
        if len(about) > 1 and not self.tally.is_new(about[0]):
            return
        first = self.statements[self.numbers[about[0]]]
        for at in about:
            row, said = self.key_rows[at], self.statements[self.numbers[at]]
            self.tally.match(row)
            if said != first:
                self.tally.contradict(row, group=said.group != first.group)

    def leaves_out(self, about: range | None) -> bool:
        """Whether a file is left out that these keys name."""
        if about is None or self.table.per_frame or self.table.select == "all":
            return False
        return bool(about) != (self.table.select == "listed")

    def told(self, item: RawItem, about: range | None) -> RawItem:
        """The file with what the table says of it by these keys."""
        if about is None:
            return item
        if self.table.per_frame:
            return replace(item, per_frame=self.per_frame)
        return replace(item, stated=_merged(item.stated, self.statements[self.numbers[about[0]]])) if about else item

    def tally_file(self, item: RawItem, path: str, about: range | None) -> None:
        """Count a file that is taken, with what all tables say of it."""
        if about is None:
            return
        self.tally.files += 1
        self.tally.ungrouped += not (item.stated.group or any(said.group for said in set(item.per_frame)))
        if not about and not self.table.per_frame and self.table.select == "all":
            self.tally.miss(keys_of_file(path, self.table))


def join_all(item: RawItem, joins: Sequence[Join]) -> RawItem | None:
    """The file with what all tables say of it; None where one of them leaves it out."""
    path = path_of(item)
    found = [(join, join.about(path)) for join in joins]  # also of a file that is left out: rows about it are matched
    if any(join.leaves_out(about) for join, about in found):
        return None
    for join, about in found:
        item = join.told(item, about)
    for join, about in found:
        join.tally_file(item, path, about)
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
        if closed and item.kind == "unavailable":
            for join in joins:
                join.tally.is_whole = False
        if item.part in spare:
            leftovers.add("copies", item.inner_path, archive)
        elif joined := item if closed else join_all(item, joins):
            yield joined
        else:
            leftovers.add(UNLISTED, item.inner_path, archive)


def _merged(first: Stated, second: Stated) -> Stated:
    """What the first says, and where it says nothing, the second."""
    return Stated(*(one or other for one, other in zip(first, second, strict=True)))


def keys_of_file(path: str, table: Table) -> Iterator[str]:
    """What of a path may equal a key of the table, the surest first."""
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
        yield shortened(path, table)


def shortened(path: str, table: Table) -> str:
    """The part of a path that keys are compared with: a name, a name without the extension of its format, or all."""
    name = path.rpartition("/")[2] if table.match in ("name", "stem") else path
    return _KNOWN.sub("", name) if table.match == "stem" else name
