"""What the columns of a table would bring, before anything is read: its rows are settled as those of a job are.

A file stands for its samples. Files that give none are not known yet: a row of two files of which one is rejected gives
nothing here, and its values to the samples of the other one in a job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ingest.columns.bringing import Bringing, pair_reader
from ingest.columns.own_rows import candidates
from ingest.columns.settling import ID, ROW, settle
from ingest.raw.items import RawItem
from shards.dataset.query import connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """What a table would bring.

    Attributes:
        files: Files that it may be about; of a table by image numbers: images.
        filled: Column → those of them that get a value.
        left_out: Reason → rows that would be left out.
    """

    files: int
    filled: Mapping[str, int]
    left_out: Mapping[str, int] = field(default_factory=dict)


def foresee(table: Bringing, items: Sequence[RawItem]) -> Foreseen:
    """Settle the rows of a table with files in place of samples.

    Args:
        table: Its typed columns.
        items: All raw files of the source.
    """
    if table.rows.about == "number":
        times = sum(table.rows.is_about(item) for item in items)
        filled = {name: times * (len(values) - values.null_count) for name, values in table.columns.items()}
        return Foreseen(files=times * table.rows.num_rows, filled=filled)
    return _settled(table, items)


def _settled(table: Bringing, items: Sequence[RawItem]) -> Foreseen:
    import pyarrow as pa

    names = list(table.columns)
    numbers = pa.array(range(1, table.rows.num_rows + 1), pa.int64())
    pairs = ((path, row + 1) for path, row in candidates(table.rows, items, lambda item: item.raw_path))
    place = "''" if table.rows.many else "path"
    with connect() as database:
        database.register("rows", pa.table({ROW: numbers, ID: numbers, **table.columns}))
        database.register("candidates", pair_reader(pairs, ("path", "row")))
        database.execute(
            f"CREATE TEMP TABLE hits AS SELECT DISTINCT row AS id, path AS key, {place} AS place FROM candidates"  # noqa: S608 - our own text
        )
        left_out = settle(database, names)
        counts = ", ".join(f'count("{name}")' for name in names)
        (filled,) = database.sql(f"SELECT {counts} FROM result").fetchall()  # noqa: S608 - our own and checked names
    return Foreseen(files=len(items), filled=dict(zip(names, filled, strict=True)), left_out=left_out)
