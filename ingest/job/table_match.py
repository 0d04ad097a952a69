"""How well a table fits the files of its source: rows about files, rows that contradict others, files without a row.

Counted while the files go by: a byte per row of the table, some 20 bytes per file without a row.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ingest.columns.own_rows import hash_key
from ingest.source.layout import Table

_MATCHED: Final = 1
_CONTRADICTS: Final = 2
_OTHER_GROUP: Final = 4

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMatch:
    """What of a table is about files of its source.

    Attributes:
        table: Its path.
        rows: Rows that count.
        matched: Rows about a file; what another table leaves out is one too.
        unmatched: Rows about none.
        contradictory: Rows about a file that say something else of a file than an earlier row, which counts.
        other_group: Of these, rows that name another group.
        files: Files taken that the table may be about.
        without: Of these, files without a row; 0 for a table that selects files.
        near: Of these, files that would have a row if upper and lower case did not count; where two names differ only
            in that, it does.
        says_groups: Whether groups are taken from the table.
        leaves_ungrouped: Whether some of these files have no group by any table.
        is_whole: Whether all files of the source could be listed.
    """

    table: str
    rows: int
    matched: int = 0
    unmatched: int = 0
    contradictory: int = 0
    other_group: int = 0
    files: int = 0
    without: int = 0
    near: int = 0
    says_groups: bool = False
    leaves_ungrouped: bool = False
    is_whole: bool = True

    @property
    def fault(self) -> str:
        """Why the source cannot be taken: groups are to come from the table, and none comes; else empty."""
        if self.matched or not (self.says_groups and self.leaves_ungrouped and self.is_whole):
            return ""
        return (
            f"{self.table} is to say what belongs together, and none of its {self.rows:,} rows is about any of the "
            f"{self.files:,} files"
        )

    @property
    def hint(self) -> str:
        """What to do about the fault."""
        return self.near_note or (
            "compare its keys with the names of the files; `key`, `match` and `of` in the YAML say how they are joined"
        )

    @property
    def near_note(self) -> str:
        """What to do where only the case of letters is between files and rows; empty where that is not so."""
        if not self.near:
            return ""
        have = "1 file without a row would have one" if self.near == 1 else f"{self.near:,} files would have a row"
        return f"{have} if upper and lower case did not count: write the names in {self.table} as the files have them"


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts what becomes of the rows of one table.

    Attributes:
        states: What is known of each row.
        asked: Places of the keys of several rows that named a file.
        is_whole: Whether all files could be listed; what an archive holds that cannot be read now is not known.
        files: Files taken that the table may be about.
        ungrouped: Of these, files without a group by any table.
        num_lost: Of these, files without a row, where the table selects none.
        lost: Hashes of their keys.
        lost_folded: Hashes of the same keys in small letters.
        lost_files: The number of the file for each of these.
    """

    states: bytearray
    asked: set[int] = field(default_factory=set)
    is_whole: bool = True
    files: int = 0
    ungrouped: int = 0
    num_lost: int = 0
    lost: array[int] = field(default_factory=lambda: array("Q"))
    lost_folded: array[int] = field(default_factory=lambda: array("Q"))
    lost_files: array[int] = field(default_factory=lambda: array("I"))

    def is_new(self, place: int) -> bool:
        """Whether the key at a place names a file for the first time; the same rows are about all files of its name."""
        if place in self.asked:
            return False
        self.asked.add(place)
        return True

    def match(self, row: int) -> None:
        """A row is about a file."""
        self.states[row] |= _MATCHED

    def match_all(self) -> None:
        """All rows are about a file: they go by the numbers of its images."""
        self.states = bytearray(b"\1") * len(self.states)

    def contradict(self, row: int, *, group: bool) -> None:
        """A row says something else of a file than an earlier one: of its group, or of something else."""
        self.states[row] |= _CONTRADICTS | (_OTHER_GROUP if group else 0)

    def miss(self, keys: Iterable[str]) -> None:
        """A file that is taken has no row."""
        for key in keys:
            self.lost.append(hash_key(key))
            self.lost_folded.append(hash_key(key.casefold()))
            self.lost_files.append(self.num_lost)
        self.num_lost += 1

    def done(self, table: Table, name: str, *, exact: array[int], folded: array[int], rows: array[int]) -> TableMatch:
        """The counts.

        Args:
            table: How the table is joined.
            name: Its path.
            exact: Hashes of its keys.
            folded: Hashes of the keys in small letters.
            rows: Number of the row for each key.
        """
        states = np.frombuffer(bytes(self.states), np.uint8)
        matched = int(np.count_nonzero(states & _MATCHED))
        return TableMatch(
            table=name,
            rows=len(states),
            matched=matched,
            unmatched=len(states) - matched,
            contradictory=int(np.count_nonzero(states & _CONTRADICTS)),
            other_group=int(np.count_nonzero(states & _OTHER_GROUP)),
            files=self.files,
            without=self.num_lost,
            near=self._near(states, exact, folded, rows),
            says_groups=bool(table.group),
            leaves_ungrouped=self.ungrouped > 0,
            is_whole=self.is_whole,
        )

    def _near(self, states: Numbers, exact: array[int], folded: array[int], rows: array[int]) -> int:
        """Files without a row that have the name of rows about no file, but for the case of its letters."""
        if not self.num_lost or not len(folded):
            return 0
        free = states[np.frombuffer(rows, np.uint32)] & _MATCHED == 0
        names = _written_once(np.frombuffer(folded, np.uint64)[free], np.frombuffer(exact, np.uint64)[free])
        lost = np.frombuffer(self.lost_folded, np.uint64)
        wanted = np.intersect1d(names, _written_once(lost, np.frombuffer(self.lost, np.uint64)))
        return len(np.unique(np.frombuffer(self.lost_files, np.uint32)[np.isin(lost, wanted)]))


def _written_once(folded: Numbers, exact: Numbers) -> Numbers:
    """Names in small letters that are written in one way only."""
    pairs = np.unique(np.stack([folded, exact]), axis=1)
    names, ways = np.unique(pairs[0], return_counts=True)
    once: Numbers = names[ways == 1]
    return once
