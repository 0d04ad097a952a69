"""Columns of the user's own in the batch: looked up once when a stream is made, then one indexing per column and batch.

A plan's samples are numbered shard by shard, in the order of the rows; the values lie in arrays of that order, each
with a mask of what is missing. Arrays of more than `IN_MEMORY_BYTES` lie in a temporary file that is mapped, so that
the memory of a stream does not grow with the samples.

Cost: one join of the index with the columns when the stream is made; nothing where no columns are asked for.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from shards.dataset.columns import Kind, column_kinds, column_table
from shards.dataset.dataset import Dataset
from shards.dataset.query import ask_tables, connect, scan, told_plainly
from shards.errors import ConfigError, SampleIndexError, SubsetError
from shards.files import reserve
from shards.subset.chosen import Chosen

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

IN_MEMORY_BYTES: Final = 128 << 20
MOST_CATEGORIES: Final = 1 << 16
_READ_ROWS: Final = 1 << 16
_DTYPES: Final[Mapping[Kind, str]] = {
    "bool": "?",
    "int": "<i8",
    "float": "<f8",
    "category": "<i4",
    "date": "<M8[D]",
    "timestamp": "<M8[us]",
}
_FILL: Final[Mapping[Kind, Any]] = {"float": np.nan, "category": -1, "date": "NaT", "timestamp": "NaT"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnValues:
    """One column of a batch.

    Attributes:
        values: `(B,)` bool, int64, float64, datetime64[D] or datetime64[us]; of a category int32, the position in
            `categories`. Where nothing is known: False, 0, NaN, NaT or -1.
        missing: `(B,)` bool, True where nothing is known.
        categories: The different values of a category in the whole table, sorted; the same for every subset, rank and
            batch.
    """

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    categories: tuple[str, ...] = ()

    def numbers(self) -> NDArray[Any]:
        """The values as numbers that every device knows: dates as int64 days, timestamps as int64 microseconds."""
        return self.values.view(np.int64) if self.values.dtype.kind == "M" else self.values

    def words(self) -> list[str | None]:
        """The values of a category as texts, None where nothing is known."""
        return [None if code < 0 else self.categories[code] for code in self.values.tolist()]


class PlanColumns:
    """The own columns of a plan's samples.

    Args:
        dataset: The dataset.
        names: The columns.
        chosen: The plan's rows.
        version: Index version.
        columns_version: Version of the columns.

    Raises:
        ConfigError: There is no such column, or it has too many categories.
        SampleIndexError: There is no such version (any more).
        StoreError: The storage failed.

    Attributes:
        version: Version of the columns.
        digests: Name → digest of the values of all samples in the order of the plan.
    """

    def __init__(
        self, dataset: Dataset, names: Sequence[str], chosen: Chosen, *, version: int, columns_version: int
    ) -> None:
        self.version = columns_version
        self._starts = np.concatenate([[0], np.cumsum(chosen.counts)]).astype(np.int64)
        kinds = column_kinds(column_table(dataset, columns_version))
        self._columns = ask_tables(
            dataset.url,
            lambda: _read(dataset, {name: kinds[name] for name in names}, chosen, (version, columns_version)),
        )
        self.digests = {name: _digest(column) for name, column in self._columns.items()}

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """The words of each category, in the order of their numbers."""
        return {name: column.categories for name, column in self._columns.items() if column.categories}

    def positions(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of samples: `(n,)` shards of the plan and rows in them → `(n,)`."""
        found: NDArray[np.int64] = self._starts[shards] + rows
        return found

    def take(self, positions: NDArray[np.int64]) -> dict[str, ColumnValues]:
        """The columns of these samples."""
        return {
            name: ColumnValues(
                values=np.asarray(column.values[positions]),
                missing=np.asarray(column.missing[positions]),
                categories=column.categories,
            )
            for name, column in self._columns.items()
        }


def open_columns(
    dataset: Dataset, names: Sequence[str], chosen: Chosen, *, version: int, pinned: int | None, wanted: int | None
) -> PlanColumns:
    """The columns of a stream: of the version that is wanted, else pinned where it has them all, else the newest.

    Args:
        dataset: The dataset.
        names: The columns.
        chosen: The plan's rows.
        version: Index version.
        pinned: Version of the columns that a lock pins.
        wanted: Version that the caller asks for.

    Raises:
        ConfigError: There is no such column.
    """
    if isinstance(names, str):
        raise ConfigError(f"columns={names!r} is no list of names", hint=f"write columns=[{names!r}]")
    doubled = [name for name in names if list(names).count(name) > 1]
    if doubled:
        raise ConfigError(f"the column {doubled[0]} is asked for twice", hint="name each column once")
    table = column_table(dataset, wanted)
    if wanted is None and pinned is not None and set(names) <= set(_kinds_of(dataset, pinned)):
        table = column_table(dataset, pinned)
    kinds = column_kinds(table)
    if table is None or (unknown := [name for name in names if name not in kinds]):
        there = f"it has {', '.join(kinds)}" if kinds else "`biovfm columns add` adds some"
        missing = ", ".join(names if table is None else unknown)
        raise ConfigError(f"{dataset.url} has no own column {missing}", hint=there)
    return PlanColumns(dataset, names, chosen, version=version, columns_version=int(table.version()))


def check_columns(state: Mapping[str, Any], columns: PlanColumns) -> None:
    """Refuse a position that saw other values in a column; one that saw fewer columns will do.

    Raises:
        SubsetError: Names the columns.
    """
    seen = state.get("columns", {})
    if changed := [name for name, digest in columns.digests.items() if seen.get(name, digest) != digest]:
        then = state.get("columns_version")
        raise SubsetError(
            f"the position saw other values in {', '.join(changed)}: "
            f"version {then} of the columns, here {columns.version}",
            hint=f"make the stream with columns_version={then}",
        )


def _kinds_of(dataset: Dataset, version: int) -> Mapping[str, Kind]:
    try:
        return column_kinds(column_table(dataset, version))
    except SampleIndexError:  # a copy, or removed since
        return {}


def _read(
    dataset: Dataset, kinds: Mapping[str, Kind], chosen: Chosen, versions: tuple[int, int]
) -> dict[str, ColumnValues]:
    import pyarrow as pa
    import pyarrow.compute as pc

    index, own = versions
    num, table = chosen.num_samples, column_table(dataset, own)
    assert table is not None
    with told_plainly(dataset.url), connect() as database:
        database.register("index_rows", scan(dataset.samples_table(index), dictionaries=("shard",)))
        database.register("own_columns", scan(table))
        columns = {
            name: ColumnValues(
                values=_array(num, _DTYPES[kind], _FILL.get(kind)),
                missing=_array(num, "?", True),
                categories=_categories(database, name) if kind == "category" else (),
            )
            for name, kind in kinds.items()
        }
        listed = ", ".join(f'"{name}"' for name in kinds)
        sql = f"SELECT shard::VARCHAR AS shard, shard_row, {listed} FROM index_rows JOIN own_columns USING (key)"  # noqa: S608
        shards = pa.array(chosen.shards, pa.string())
        for batch in database.sql(sql).to_arrow_reader(_READ_ROWS):
            numbers = pc.fill_null(pc.index_in(batch["shard"], value_set=shards), -1).to_numpy()
            places = chosen.positions(numbers, batch["shard_row"].to_numpy().astype(np.int64))
            inside = places >= 0
            for name, column in columns.items():
                _fill(column, kinds[name], batch[name], places, inside)
    return columns


def _fill(
    column: ColumnValues, kind: Kind, given: pa.Array, places: NDArray[np.int64], inside: NDArray[np.bool_]
) -> None:
    """Put values where they belong."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == "category":
        given = pc.index_in(given, value_set=pa.array(column.categories, pa.string()))
    known = pc.is_valid(given).to_numpy(zero_copy_only=False) & inside
    if kind in ("date", "timestamp"):
        given = given.cast(pa.int32() if kind == "date" else pa.int64())
    values = given.filter(pa.array(known)).to_numpy(zero_copy_only=False)
    column.values[places[known]] = values.astype(column.values.dtype)
    column.missing[places[known]] = False


def _categories(database: duckdb.DuckDBPyConnection, name: str) -> tuple[str, ...]:
    sql = f'SELECT DISTINCT "{name}" FROM own_columns WHERE "{name}" IS NOT NULL LIMIT {MOST_CATEGORIES + 1}'  # noqa: S608
    words = sorted(word for (word,) in database.execute(sql).fetchall())
    if len(words) > MOST_CATEGORIES:
        raise ConfigError(
            f"the column {name} has more than {MOST_CATEGORIES:,} different texts", hint="stream a column of fewer"
        )
    return tuple(words)


def _array(num: int, dtype: DTypeLike, fill: Any) -> NDArray[Any]:
    """An array of a value, mapped from an unnamed file where it is large."""
    size = num * np.dtype(dtype).itemsize
    if size <= IN_MEMORY_BYTES:
        made: NDArray[Any] = np.zeros(num, dtype)
    else:
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            reserve(file.fileno(), size)
            made = np.memmap(file, dtype, mode="r+", shape=(num,))
    if fill is not None:
        made[:] = fill
    return made


def _digest(column: ColumnValues) -> str:
    digest = hashlib.sha256(repr((column.values.dtype.str, column.categories)).encode())
    digest.update(np.ascontiguousarray(column.values).view(np.uint8).data)
    digest.update(np.ascontiguousarray(column.missing).view(np.uint8).data)
    return f"sha256:{digest.hexdigest()[:32]}"
