"""What a table of a source says in columns of the user's own: its cells, and which raw files each row is about.

A table of millions of rows is kept as columns of text and, for the files, as sorted 64-bit hashes of their names: some
12 bytes per row and its cells.
"""

from __future__ import annotations

import difflib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from ingest.raw.items import RawItem
from ingest.raw.table_rows import plain_text
from ingest.source.layout import OwnColumn
from shards.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_CHUNK_ROWS: Final = 1 << 16
_NO_VALUES: Final[Mapping[str, Mapping[str, str]]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRows:
    """The rows of a table that bring columns.

    Attributes:
        name: Its path, for messages.
        wanted: New name → what of the table it is.
        texts: New name → the cell of each row; without optional columns that the table does not have.
        num_rows: Rows.
        about: What a row is about: a raw `file` (all of its images), the image of its own `number`, or the `place` (raw
            path and frame) that it names.
        many: Whether a row may be about several files.
        keys: `file`: sorted hashes of the keys.
        rows: `file`: for each key, the number of its row, from 0.
        keys_of: The keys by which a raw file is found, the surest first; nothing for files that it says nothing of.
        places: `place`: raw path and frame of each row.
        of_list: Whether the table is a list, so that the command line can name its columns.
    """

    name: str
    wanted: Mapping[str, OwnColumn]
    texts: Mapping[str, pa.ChunkedArray]
    num_rows: int
    about: Literal["file", "number", "place"]
    many: bool = False
    keys: array[int] = field(default_factory=lambda: array("Q"))
    rows: array[int] = field(default_factory=lambda: array("I"))
    keys_of: Callable[[RawItem], Iterable[str]] = lambda _: ()
    places: Sequence[tuple[str, str]] = ()
    of_list: bool = False

    def rows_of(self, item: RawItem) -> Sequence[int]:
        """The numbers of the rows that are about a raw file."""
        for key in self.keys_of(item):
            hashed = hash_key(key)
            first = bisect_left(self.keys, hashed)
            if first < len(self.keys) and self.keys[first] == hashed:
                return self.rows[first : bisect_right(self.keys, hashed)]
        return ()

    def is_about(self, item: RawItem) -> bool:
        """`number`: whether the rows are about the images of a raw file."""
        return next(iter(self.keys_of(item)), None) is not None


class Cells:
    """Collects the cells of a table's rows.

    Args:
        wanted: New name → what of the table it is.
        values: Header → its words → the words to take for them.
    """

    def __init__(self, wanted: Mapping[str, OwnColumn], values: Mapping[str, Mapping[str, str]] = _NO_VALUES) -> None:
        self._wanted = wanted
        self._values = values
        self._headers: dict[str, str] = {}
        self._name = "the table"
        self._waiting: list[list[str]] = []
        self._chunks: list[list[pa.Array]] = [[] for _ in wanted]
        self._keys, self._rows = array("Q"), array("I")
        self.num_rows = 0

    @property
    def headers(self) -> frozenset[str]:
        """The headers that are wanted."""
        return frozenset(column.header for column in self._wanted.values())

    def check(self, names: Iterable[Any], *, where: str, complete: bool = True) -> None:
        """Compare the headers of the table with those that are wanted.

        Args:
            names: The headers that are there.
            where: The table, for messages.
            complete: Whether each row has all of them.

        Raises:
            SourceError: One is not there.
        """
        there = {plain_text(name).strip(): str(name) for name in names if name}
        for column in self._wanted.values():
            if complete and not column.optional and column.header not in there:
                near = difflib.get_close_matches(column.header, list(there), 1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(list(there)[:8])}"
                raise SourceError(f"{where} has no column {column.header}", hint=hint)
        self._headers, self._name = there, where

    def add(self, row: Mapping[Any, Any], keys: Iterable[str] = ()) -> None:
        """Add a row and the keys of the files that it is about."""
        for key in keys:
            self._keys.append(hash_key(key))
            self._rows.append(self.num_rows)
        self._waiting.append([self._cell(row, column.header) for column in self._wanted.values()])
        self.num_rows += 1
        if len(self._waiting) == _CHUNK_ROWS:
            self._flush()

    def done(
        self,
        about: Literal["file", "number", "place"],
        *,
        many: bool = False,
        keys_of: Callable[[RawItem], Iterable[str]] = lambda _: (),
        places: Sequence[tuple[str, str]] = (),
        of_list: bool = False,
    ) -> OwnRows:
        """The rows of the table that was checked; see `OwnRows` for the arguments."""
        import pyarrow as pa

        self._flush()
        keys, rows = np.frombuffer(self._keys, np.uint64), np.frombuffer(self._rows, np.uint32)
        order = np.argsort(keys, kind="stable")
        return OwnRows(
            name=self._name,
            wanted=self._wanted,
            texts={
                one: pa.chunked_array(chunks, pa.string())
                for (one, column), chunks in zip(self._wanted.items(), self._chunks, strict=True)
                if column.header in self._headers or not column.optional
            },
            num_rows=self.num_rows,
            about=about,
            many=many,
            keys=array("Q", keys[order].tobytes()),
            rows=array("I", rows[order].tobytes()),
            keys_of=keys_of,
            places=places,
            of_list=of_list,
        )

    def _cell(self, row: Mapping[Any, Any], header: str) -> str:
        said = cell_text(row.get(self._headers.get(header, header)))
        return self._values.get(header, {}).get(said, said)

    def _flush(self) -> None:
        import pyarrow as pa

        for number, values in enumerate(zip(*self._waiting, strict=True) if self._waiting else ()):
            self._chunks[number].append(pa.array(values, pa.string()))
        self._waiting.clear()


def cell_text(value: Any) -> str:
    """A cell as text; of a list its first entry, nothing for what is no number."""
    if isinstance(value, list):
        value = value[0] if value else None
    return "" if value is None else plain_text(value).strip()


def hash_key(key: str) -> int:
    """The 64-bit hash by which a key is kept."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "little")


def candidates(rows: OwnRows, items: Iterable[RawItem], path_of: Callable[[RawItem], str]) -> Iterator[tuple[str, int]]:
    """Published raw path and row of each raw file that a row is about.

    Args:
        rows: The rows of a table.
        items: All raw files.
        path_of: How the index has the raw path of one.
    """
    for item in items:
        found = rows.rows_of(item) if rows.about == "file" else (0,) if rows.is_about(item) else ()
        if found:
            path = path_of(item)
            yield from ((path, row) for row in found)
