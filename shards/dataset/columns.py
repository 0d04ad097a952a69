"""Columns of the user's own: a Delta table beside the index, one row per sample that has a value, by sample key.

    columns/    `key`, and one column per name; its versions are counted apart from those of the index

The values never go into the tars. A change writes the whole table anew as one more version; an older version stays
readable as long as its files do, and a lock names the version that its predicate was evaluated on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from shards.dataset.direct import ROWS
from shards.dataset.log_questions import is_damaged_reply
from shards.dataset.query import ask_tables, connect, scan, told_plainly
from shards.dataset.table_files import LOG_PROPERTIES, log_kept
from shards.errors import ConfigError, SampleIndexError
from shards.schema import INDEX_COLUMNS
from shards.store import storage_options

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    from deltalake import DeltaTable

    from shards.dataset.dataset import Dataset

Kind = Literal["bool", "int", "float", "category", "date", "timestamp"]
FOLDER: Final = "columns"
_TRIES: Final = 8
_NOTE: Final = "biovfm.columns"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_ROWS_NAME, _OWN_NAME = ROWS, "own_columns"


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnFacts:
    """What a column of the user's own holds.

    Attributes:
        name: Its name in `--where` and in a stream.
        kind: Its type.
        values: Samples of the newest index version that have a value.
        missing: Samples that have none.
        distinct: Different values.
        examples: The most frequent values of a category or bool, else the least and the greatest value.
    """

    name: str
    kind: Kind
    values: int
    missing: int
    distinct: int
    examples: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What given values would change.

    Attributes:
        rows: Samples that would get a value that they do not have.
        replaced: Column → samples that have another value.
    """

    rows: int
    replaced: Mapping[str, int]


def arrow_type(kind: Kind) -> pa.DataType:
    """The Arrow type in which a kind is stored; timestamps are UTC, in microseconds."""
    import pyarrow as pa

    return {
        "bool": pa.bool_(),
        "int": pa.int64(),
        "float": pa.float64(),
        "category": pa.string(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }[kind]


def kind_of(data_type: pa.DataType) -> Kind:
    """The kind of a stored Arrow type."""
    import pyarrow as pa

    if pa.types.is_timestamp(data_type):
        return "timestamp"
    kinds: Mapping[pa.DataType, Kind] = {
        arrow_type(kind): kind for kind in ("bool", "int", "float", "category", "date")
    }
    return kinds.get(data_type, "category")


def check_name(name: str, header: str = "") -> None:
    """Refuse a name that cannot stand in a predicate as it is, or that the index has.

    Args:
        name: The name.
        header: What the table calls the column, for the hint; its name without it.

    Raises:
        ConfigError: Says what is wrong with it.
    """
    if name in INDEX_COLUMNS:
        raise ConfigError(
            f"the index has a column {name} of its own", hint=f"rename yours: --column own_{name}={header or name}"
        )
    if _NAME.fullmatch(name) is None or name in _reserved():
        raise ConfigError(
            f"{name!r} cannot be the name of a column: [a-z][a-z0-9_]*, and no word of SQL",
            hint=f"rename it: --column NEW={header or name}",
        )


def column_table(dataset: Dataset, version: int | None = None) -> DeltaTable | None:
    """The table of own columns, None where there is none.

    Raises:
        SampleIndexError: There is no such version (any more).
    """
    return dataset.table(FOLDER, version=version)


def columns_version(dataset: Dataset) -> int | None:
    """The newest version of the own columns, None where there are none."""
    table = column_table(dataset)
    return None if table is None else int(table.version())


def column_kinds(table: DeltaTable | None) -> dict[str, Kind]:
    """Name → kind, in the order in which they were added."""
    if table is None:
        return {}
    schema = scan(table).schema
    return {field.name: kind_of(field.type) for field in schema if field.name != "key"}


def named_in(text: str, names: Sequence[str]) -> list[str]:
    """Which of the names stand as words in a predicate."""
    words = {word.lower() for word in re.findall(r"\w+", text)}
    return [name for name in names if name in words]


def register_samples(
    database: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    rows: Any,
    *,
    predicate: str = "",
    version: int | None = None,
) -> None:
    """Register rows of the index as `samples`, with the own columns that a predicate names; see `join_samples`."""
    database.register(_ROWS_NAME, rows)
    join_samples(database, dataset, predicate=predicate, version=version)


def join_samples(
    database: duckdb.DuckDBPyConnection, dataset: Dataset, *, predicate: str = "", version: int | None = None
) -> None:
    """Make the view `samples`: the rows that are there as `index_rows`, with the own columns that a predicate names.

    Where it names none, nothing is joined; nor where the version is not there, as in a copy without own columns.

    Args:
        database: The connection.
        dataset: The dataset.
        predicate: The text that may name own columns.
        version: Version of the own columns; the newest where None.
    """
    table = _pinned(dataset, version) if predicate else None
    kinds = column_kinds(table)
    wanted = named_in(predicate, list(kinds))
    if table is None or not wanted:
        database.execute(f"CREATE TEMP VIEW samples AS FROM {_ROWS_NAME}")
        return
    database.register(_OWN_NAME, scan(table))
    shown = ", ".join(_shown(name, kinds[name]) for name in wanted)
    database.execute(
        f"CREATE TEMP VIEW samples AS SELECT {_ROWS_NAME}.*, {shown} "  # noqa: S608 - checked names
        f"FROM {_ROWS_NAME} LEFT JOIN {_OWN_NAME} USING (key)"
    )


def _pinned(dataset: Dataset, version: int | None) -> DeltaTable | None:
    try:
        return column_table(dataset, version)
    except SampleIndexError:
        if version is None:
            raise
        return None


def forget_samples(database: duckdb.DuckDBPyConnection) -> None:
    """Undo `register_samples`."""
    database.execute("DROP VIEW IF EXISTS samples")


def _shown(name: str, kind: Kind) -> str:
    """A column in SQL: timestamps without a zone, so that no answer depends on the session's."""
    column = f'{_OWN_NAME}."{name}"'
    return f"{column} AT TIME ZONE 'UTC' AS \"{name}\"" if kind == "timestamp" else column


def write_columns(
    dataset: Dataset, given: pa.Table, *, replace: bool = False, note: Mapping[str, Any], if_changed: bool = False
) -> int:
    """Give samples their values, as one more version of the table.

    A column that is there already is extended: samples without a value get theirs.

    Args:
        dataset: The dataset.
        given: `key` and the new columns; each key once.
        replace: Whether a value may take the place of another one.
        note: Kept in the commit; counts and names, no values.
        if_changed: Whether to write nothing where all samples have these values already.

    Returns:
        The version after it.

    Raises:
        ConfigError: A column has another type, or samples have another value and `replace` was not asked for.
    """

    def rows(database: duckdb.DuckDBPyConnection, old: DeltaTable | None) -> str:
        database.register("given", given)
        kinds = column_kinds(old)
        names = [name for name in given.column_names if name != "key"]
        for name in names:
            _check_kind(name, kinds.get(name), kind_of(given.schema.field(name).type))
        if old is None:
            return "SELECT * FROM given ORDER BY key"
        if not replace:
            _check_same(database, [name for name in names if name in kinds])
        if if_changed and not _changes(database, names, kinds).rows:
            return ""
        kept = [f'old."{name}"' for name in kinds if name not in names]
        both = [f'coalesce(given."{name}", old."{name}") AS "{name}"' for name in names if name in kinds]
        new = [f'given."{name}"' for name in names if name not in kinds]
        columns = ", ".join(["coalesce(given.key, old.key) AS key", *kept, *both, *new])
        return f"SELECT {columns} FROM old FULL JOIN given ON old.key = given.key ORDER BY 1"  # noqa: S608

    return _rewrite(dataset, rows, note)


def count_changes(dataset: Dataset, given: pa.Table) -> Changes:
    """What `write_columns` with `replace` would change.

    Args:
        dataset: The dataset.
        given: `key` and the columns; each key once.
    """
    old = column_table(dataset)
    if old is None:
        return Changes(rows=len(given), replaced={})

    def counted() -> Changes:
        with _reading(dataset, old) as database:
            database.register("given", given)
            names = [name for name in given.column_names if name != "key"]
            return _changes(database, names, column_kinds(old))

    return ask_tables(dataset.url, counted)


def _changes(database: duckdb.DuckDBPyConnection, names: Sequence[str], kinds: Mapping[str, Kind]) -> Changes:
    """What the rows of `given` would change in `old`; no value is none where another is."""
    there = [name for name in names if name in kinds]
    news = [f'given."{name}" IS NOT NULL' for name in names if name not in kinds]
    others = [f'(given."{name}" IS NOT NULL AND given."{name}" IS DISTINCT FROM old."{name}")' for name in there]
    replaced = [f'count(*) FILTER (given."{name}" != old."{name}")' for name in there]
    changed = " OR ".join([*news, *others])
    sql = f"SELECT {', '.join([f'count(*) FILTER ({changed})', *replaced])} FROM given LEFT JOIN old USING (key)"  # noqa: S608
    (counts,) = database.execute(sql).fetchall()
    found = {name: int(count) for name, count in zip(there, counts[1:], strict=True) if count}
    return Changes(rows=int(counts[0]), replaced=found)


def remove_columns(dataset: Dataset, names: Sequence[str]) -> int:
    """Take columns out of the newest version; older versions keep them.

    Returns:
        The version after it.

    Raises:
        ConfigError: There is no such column.
    """

    def rows(_: duckdb.DuckDBPyConnection, old: DeltaTable | None) -> str:
        kinds = column_kinds(old)
        if unknown := [name for name in names if name not in kinds]:
            there = f"there are {', '.join(kinds)}" if kinds else "add columns with `biovfm columns add`"
            raise ConfigError(f"{dataset.url} has no own column {', '.join(unknown)}", hint=there)
        kept = [f'"{name}"' for name in kinds if name not in names]
        has_value = " OR ".join(f"{name} IS NOT NULL" for name in kept) or "FALSE"
        return f"SELECT {', '.join(['key', *kept])} FROM old WHERE {has_value} ORDER BY key"  # noqa: S608

    return _rewrite(dataset, rows, {"removed": list(names)})


def describe_columns(dataset: Dataset) -> list[ColumnFacts]:
    """What each own column holds, over the samples of the newest index version."""
    table = column_table(dataset)
    kinds = column_kinds(table)
    if table is None or not kinds or dataset.version() < 0:
        return []

    def facts() -> list[ColumnFacts]:
        with told_plainly(dataset.url), connect() as database:
            database.register(_ROWS_NAME, scan(dataset.samples_table()))
            database.register("old", scan(table))
            database.execute(
                f"CREATE TEMP TABLE own AS SELECT old.* EXCLUDE (key) FROM {_ROWS_NAME} LEFT JOIN old USING (key)"  # noqa: S608
            )
            return [_facts(database, name, kind) for name, kind in kinds.items()]

    return ask_tables(dataset.url, facts)


def _facts(database: duckdb.DuckDBPyConnection, name: str, kind: Kind) -> ColumnFacts:
    bounds = f'min("{name}")::VARCHAR, max("{name}")::VARCHAR'
    sql = f'SELECT count("{name}"), count(*), count(DISTINCT "{name}"), {bounds} FROM own'  # noqa: S608
    ((values, total, distinct, least, greatest),) = database.execute(sql).fetchall()
    if kind in ("category", "bool"):
        most = f'SELECT "{name}" FROM own WHERE "{name}" IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 4'  # noqa: S608
        shown = ", ".join(str(value) for (value,) in database.execute(most).fetchall())
        examples = shown + (", …" if distinct > 4 else "")
    else:
        examples = f"{least} … {greatest}" if values else ""
    return ColumnFacts(
        name=name, kind=kind, values=values, missing=total - values, distinct=distinct, examples=examples
    )


def _check_kind(name: str, old: Kind | None, new: Kind) -> None:
    if old is not None and old != new:
        raise ConfigError(
            f"the column {name} is there with type {old}, the table has {new}",
            hint=f"add it with --type {name}={old}, or remove it first with `biovfm columns remove`",
        )


def _check_same(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    for name in names:
        sql = f'SELECT count(*) FROM old JOIN given USING (key) WHERE old."{name}" != given."{name}"'  # noqa: S608
        ((num,),) = database.execute(sql).fetchall()
        if num:
            raise ConfigError(
                f"{num:,} samples have another value in {name} already", hint="--replace takes the new values"
            )


@contextmanager
def _reading(dataset: Dataset, old: DeltaTable | None) -> Iterator[duckdb.DuckDBPyConnection]:
    with told_plainly(dataset.url), connect() as database:
        if old is not None:
            database.register("old", scan(old))
        yield database


def _rewrite(dataset: Dataset, rows: Any, note: Mapping[str, Any]) -> int:
    """Write the table anew from what a query makes of its newest version; again where another writer came first.

    Without a query nothing is written.
    """
    from deltalake.exceptions import DeltaError

    for left in reversed(range(_TRIES)):
        old = column_table(dataset)
        try:
            with _reading(dataset, old) as database:
                if not (sql := rows(database, old)):
                    break
                _overwrite(dataset, old, database, sql, note)
        except DeltaError as error:
            if left and is_damaged_reply(dataset.store, error):
                continue
            now = columns_version(dataset)
            if not left or now == (None if old is None else old.version()):
                text = str(error).splitlines()[0]
                raise SampleIndexError(
                    f"{dataset.url}: the columns cannot be committed ({text})", hint="run the same command again"
                ) from error
        else:
            break
    version = columns_version(dataset)
    assert version is not None
    return version


def _overwrite(
    dataset: Dataset, old: DeltaTable | None, database: duckdb.DuckDBPyConnection, sql: str, note: Mapping[str, Any]
) -> None:
    import pyarrow as pa
    from deltalake import CommitProperties, write_deltalake

    reader = database.sql(sql).to_arrow_reader(1 << 14)
    fields = [pa.field(field.name, arrow_type(kind_of(field.type))) for field in reader.schema]
    schema = pa.schema(fields)
    batches = (batch.cast(schema) for batch in reader)
    write_deltalake(
        old if old is not None else dataset.table_url(FOLDER),
        pa.RecordBatchReader.from_batches(schema, batches),
        mode="overwrite" if old is not None else "error",
        schema_mode="overwrite" if old is not None else None,
        storage_options=storage_options(dataset.url) or None,
        configuration=LOG_PROPERTIES,
        post_commithook_properties=log_kept(),
        commit_properties=CommitProperties(
            custom_metadata={_NOTE: json.dumps(dict(note), sort_keys=True)},
            max_commit_retries=0,  # else a commit is rebased on what another writer made, and that one's columns go
        ),
    )


def _reserved() -> frozenset[str]:
    """The words of DuckDB's SQL that need quotes as names."""
    with connect() as database:
        sql = "SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'"
        return frozenset(str(word) for (word,) in database.execute(sql).fetchall())
