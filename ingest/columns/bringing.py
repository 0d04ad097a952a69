"""Columns of the user's own that come with a job: named in the source's YAML, or by the user for a list.

They are typed and checked for identifiers before anything is read, and written beside the index after the job's commit.
A job that is run again compares them once more and writes what is missing, so nothing is lost where it ended between
the two.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ingest.columns.guard import why_refused
from ingest.columns.kinds import typed_as
from ingest.columns.own_rows import OwnRows, candidates
from ingest.columns.settling import ID, ROW, Settled, settle_rows
from ingest.raw.items import RawItem
from shards.dataset.columns import Kind, check_name, column_kinds, column_table, count_changes, write_columns
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_BATCH: Final = 1 << 16
_LISTED: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What one table brought.

    Attributes:
        table: Its path.
        kinds: Column → type.
        version: Version of the own columns after it; None where there are none.
        rows: Rows of the table that count.
        matched: Rows whose values samples have.
        left_out: Reason → rows that were left out.
        first_left_out: The numbers of the first of them, from 1 for the first row that counts.
        samples: Samples that have a row.
        without: Samples of the source that have none.
        replaced: Column → samples that had another value before.
    """

    table: str
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    version: int | None = None
    rows: int = 0
    matched: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    first_left_out: Sequence[int] = ()
    samples: int = 0
    without: int = 0
    replaced: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bringing:
    """The typed columns of a table, before they are written.

    Attributes:
        rows: The table.
        columns: Name → the value of each row.
        kinds: Name → type.
    """

    rows: OwnRows
    columns: Mapping[str, pa.Array]
    kinds: Mapping[str, Kind]


def prepare(dataset: Dataset, tables: Sequence[OwnRows]) -> list[Bringing]:
    """Type the columns of a source's tables and refuse what may name a person.

    Args:
        dataset: The dataset that they come into; it may not be there yet.
        tables: The tables.

    Raises:
        ConfigError: A column may name a person, does not fit its type, or has another type in the dataset.
    """
    if not tables:
        return []
    there = column_kinds(column_table(dataset))
    return [type_rows(rows, there) for rows in tables]


def type_rows(rows: OwnRows, there: Mapping[str, Kind]) -> Bringing:
    """The columns of one table in their types; one that is empty everywhere and has no type stays out.

    Args:
        rows: The table.
        there: Own columns of the dataset → their types.

    Raises:
        ConfigError: As `prepare`.
    """
    columns: dict[str, pa.Array] = {}
    kinds: dict[str, Kind] = {}
    for name, wanted in rows.wanted.items():
        _check_own_name(name, wanted.header)
        if name not in rows.texts:
            continue
        values, kind = _typed(rows, name, there.get(name))
        if values.null_count < len(values) or wanted.type or name in there:
            columns[name], kinds[name] = values, kind
    refused = {
        name: why
        for name, wanted in rows.wanted.items()
        if name in columns and not wanted.allow and (why := why_refused(wanted.header, columns[name], kinds[name]))
    }
    if refused:
        reasons = "; ".join(f"{rows.wanted[name].header}: {why}" for name, why in refused.items())
        raise ConfigError(
            f"{rows.name}: refused, since they may name a person: {reasons}",
            hint="leave them out of the columns, or say that nobody can be told by them: "
            + _way_to_say(rows, list(refused), "--allow NAME", "`allow: true`"),
        )
    return Bringing(rows=rows, columns=columns, kinds=kinds)


def _typed(rows: OwnRows, name: str, there: Kind | None) -> tuple[pa.Array, Kind]:
    """A column in its type.

    Raises:
        ConfigError: It does not fit the type that is wanted, or that of the column that is there.
    """
    wanted = rows.wanted[name]
    try:
        return typed_as(f"{wanted.header} of {rows.name}", rows.texts[name], wanted.type, there, hint="")
    except ConfigError as error:
        dates = "write dates as 2021-03-04, or " if wanted.type in ("date", "timestamp") else ""
        hint = f"{dates}name another type: {_way_to_say(rows, [name], '--type NAME=TYPE', '`type`')}"
        if there is not None:
            hint += "; or remove the column that is there with `biovfm columns remove`"
        raise ConfigError(error.message, hint=hint) from None


def _way_to_say(rows: OwnRows, names: Sequence[str], flag: str, key: str) -> str:
    """How the user says more of some columns, in the way in which such columns are named."""
    in_yaml = f"{key} beside the `header` in the YAML"
    if not rows.of_list:
        return in_yaml
    headers = ((name, shlex.quote(f"{name}={rows.wanted[name].header}")) for name in names)
    flags = " ".join(f"--column {column} {flag.replace('NAME', name)}" for name, column in headers)
    return f"{flags} with `biovfm ingest`" + ("" if rows.about == "place" else f" ({in_yaml}, where one names them)")


def bring(
    dataset: Dataset,
    tables: Sequence[Bringing],
    items: Sequence[RawItem],
    path_of: Callable[[RawItem], str],
    *,
    source: str,
) -> list[Brought]:
    """Give the samples of a source the values of its tables; writes nothing where they have them already.

    Args:
        dataset: The dataset.
        tables: The tables.
        items: All raw files of the source.
        path_of: How the index has the raw path of one.
        source: The source.

    Raises:
        ConfigError: A column got another type from somebody else meanwhile.
        SampleIndexError: The columns cannot be committed.
    """
    return [_bring(dataset, table, items, path_of, source) for table in tables if table.columns]


def _bring(
    dataset: Dataset, table: Bringing, items: Sequence[RawItem], path_of: Callable[[RawItem], str], source: str
) -> Brought:
    import pyarrow as pa

    numbers = pa.array(range(1, table.rows.num_rows + 1), pa.int64())
    rows = pa.table({ROW: numbers, ID: numbers, **table.columns})

    def match(database: duckdb.DuckDBPyConnection) -> None:
        _match(database, table.rows, items, path_of, source)

    settled = settle_rows(dataset, rows, match, sources=lambda _: [source])
    return _written(dataset, table, settled, source)


def _written(dataset: Dataset, table: Bringing, settled: Settled, source: str) -> Brought:
    replaced: Mapping[str, int] = {}
    there = column_table(dataset)
    version = None if there is None else int(there.version())
    if len(settled.values):
        changes = count_changes(dataset, settled.values)
        if changes.rows:
            note = {
                "added": dict(table.kinds),
                "by": "source",
                "source": source,
                "rows": table.rows.num_rows,
                "samples": len(settled.values),
                "left_out": dict(settled.left_out),
            }
            version = write_columns(dataset, settled.values, replace=True, note=note, if_changed=True)
            replaced = changes.replaced
    return Brought(
        table=table.rows.name,
        kinds=table.kinds,
        version=version,
        rows=table.rows.num_rows,
        matched=table.rows.num_rows - sum(settled.left_out.values()),
        left_out=settled.left_out,
        first_left_out=[row for row, *_ in settled.listed[:_LISTED]],
        samples=len(settled.values),
        without=settled.without,
        replaced=replaced,
    )


def _match(
    database: duckdb.DuckDBPyConnection,
    rows: OwnRows,
    items: Sequence[RawItem],
    path_of: Callable[[RawItem], str],
    source: str,
) -> None:
    """Make `hits`: the samples of a source that each row is about; `id` is the number of the row, from 1."""
    if rows.about == "place":
        pairs: Iterator[tuple[Any, ...]] = ((*place, row) for row, place in enumerate(rows.places, 1))
        names: tuple[str, ...] = ("path", "frame", "row")
    else:
        pairs = ((path, row + 1) for path, row in candidates(rows, items, path_of))
        names = ("path", "row")
    database.register("candidates", pair_reader(pairs, names))
    database.execute("CREATE TEMP TABLE wanted AS SELECT DISTINCT * FROM candidates")
    database.unregister("candidates")
    place = "''" if rows.many else "raw_path"
    by_file = f"SELECT wanted.row AS id, key, {place} AS place FROM samples JOIN wanted ON raw_path = path"  # noqa: S608
    number = "1 + TRY_CAST(regexp_extract(raw_frame, '[0-9]+$') AS BIGINT)"
    of_these = f"SELECT *, {number} AS id FROM samples WHERE raw_path IN (SELECT path FROM wanted)"  # noqa: S608
    by_number = f"SELECT id, key, '' AS place FROM ({of_these}) WHERE id <= {rows.num_rows}"  # noqa: S608
    sql = {
        "file": f"{by_file} WHERE source = $1",
        "place": f"{by_file} AND raw_frame = frame WHERE source = $1",
        "number": f"{by_number} AND source = $1",
    }[rows.about]
    database.execute(f"CREATE TEMP TABLE hits AS {sql}", [source])


def pair_reader(rows: Iterator[tuple[Any, ...]], names: Sequence[str]) -> pa.RecordBatchReader:
    """Tuples as a table that is read once; a column `row` holds numbers, all others text."""
    import pyarrow as pa

    schema = pa.schema([(name, pa.int64() if name == "row" else pa.string()) for name in names])

    def batches() -> Iterator[pa.RecordBatch]:
        while some := list(islice(rows, _BATCH)):
            columns = zip(*some, strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _check_own_name(name: str, header: str) -> None:
    """Refuse a name that a predicate could not have.

    Raises:
        ConfigError: Says what is wrong with it.
    """
    try:
        check_name(name)
    except ConfigError as error:
        raise ConfigError(error.message, hint=f"give {header} another name: own_{name}") from None
