"""Which samples get the values of which row: matched, settled where several rows meet, and what is left out counted.

A row that matches nothing, an identifier that stands for several patients or files, and rows that contradict each other
are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shards.dataset.dataset import Dataset

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

NO_ID: Final = "no identifier"
UNMATCHED: Final = "matches nothing"
AMBIGUOUS: Final = "matches several groups or files"
CONTRADICTED: Final = "contradicts another row"

ROW: Final = "_row"
ID: Final = "_id"
"""Names that no column of a user's own can have."""

Match = Callable[["duckdb.DuckDBPyConnection"], None]
"""Makes the table `hits` (`id`, `key`, `place`) from `samples`: an `id` with several places is ambiguous."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What the rows of a table give the samples.

    Attributes:
        values: `key` and the values of each sample, by key.
        left_out: Reason → rows that were left out.
        listed: Number, reason and `id` of each row that was left out.
        without: Samples of the sources that no row speaks of.
    """

    values: pa.Table
    left_out: Mapping[str, int]
    listed: Sequence[tuple[int, str, int | None]]
    without: int


def settle_rows(
    dataset: Dataset, rows: pa.Table, match: Match, *, sources: Callable[[duckdb.DuckDBPyConnection], Sequence[str]]
) -> Settled:
    """Match rows to samples.

    Args:
        dataset: The dataset.
        rows: `_row` (from 1), `_id` (null where there is none) and the values.
        match: What finds the samples.
        sources: The sources whose samples count as without a row.

    Raises:
        SampleIndexError: The dataset holds no samples.
    """
    import pyarrow as pa

    names = [name for name in rows.column_names if name not in (ROW, ID)]
    dataset.samples_table()  # there are none yet: said before anything else
    with dataset.database("samples", rows=rows) as database:
        here = list(sources(database))
        match(database)
        left_out = settle(database, names)
        values = database.sql("SELECT * FROM result ORDER BY key").to_arrow_table()
        listed = database.sql("SELECT row, reason, id FROM fates WHERE reason != '' ORDER BY row").fetchall()
        of_these = "source IN (SELECT unnest($1))"
        sql = f"SELECT count(*) FROM samples WHERE {of_these} AND key NOT IN (SELECT key FROM result)"  # noqa: S608
        ((without,),) = database.execute(sql, [here]).fetchall()
    schema = pa.schema([("key", pa.string()), *((name, rows.schema.field(name).type) for name in names)])
    return Settled(values=values.cast(schema), left_out=left_out, listed=listed, without=without)


def settle(database: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, int]:
    """From `rows` and `hits`: the fate of each row in `fates`, and the values of each sample in `result`.

    Returns:
        Reason → rows that were left out.
    """
    values = ", ".join(f'rows."{name}"' for name in names)
    database.execute(
        f"""CREATE TEMP TABLE places AS SELECT id, count(DISTINCT place) AS num FROM hits GROUP BY id;
        CREATE TEMP TABLE pairs AS SELECT rows.{ROW} AS row, hits.key, hash({values}) AS said
            FROM rows JOIN hits ON rows.{ID} = hits.id JOIN places ON hits.id = places.id WHERE places.num = 1;
        CREATE TEMP TABLE torn AS SELECT key FROM pairs GROUP BY key HAVING count(DISTINCT said) > 1;
        CREATE TEMP TABLE fates AS SELECT rows.{ROW} AS row, rows.{ID} AS id, CASE
                WHEN rows.{ID} IS NULL THEN '{NO_ID}' WHEN places.num IS NULL THEN '{UNMATCHED}'
                WHEN places.num > 1 THEN '{AMBIGUOUS}' WHEN contradicted.row IS NOT NULL THEN '{CONTRADICTED}'
                ELSE '' END AS reason
            FROM rows LEFT JOIN places ON rows.{ID} = places.id
            LEFT JOIN (SELECT DISTINCT row FROM pairs SEMI JOIN torn USING (key)) AS contradicted
                ON rows.{ROW} = contradicted.row;
        CREATE TEMP TABLE result AS
            SELECT pairs.key, {", ".join(f'any_value(rows."{name}") AS "{name}"' for name in names)}
            FROM pairs JOIN rows ON rows.{ROW} = pairs.row JOIN fates ON fates.row = pairs.row
            WHERE fates.reason = '' GROUP BY pairs.key"""  # noqa: S608 - our own and checked names
    )
    counted = dict(database.sql("SELECT reason, count(*) FROM fates WHERE reason != '' GROUP BY 1").fetchall())
    return {reason: counted[reason] for reason in sorted(counted)}
