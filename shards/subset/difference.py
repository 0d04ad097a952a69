"""How two subsets differ: by source, modality and reason, and key by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shards.dataset.columns import forget_samples, register_samples
from shards.dataset.dataset import Dataset
from shards.dataset.query import connect, scan
from shards.schema import rejects_schema
from shards.subset.chosen import MEMORY, run
from shards.subset.data_list import OpenRows, open_rows
from shards.subset.lock import is_lock

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffRow:
    """Samples of one source and modality that differ for one reason.

    Attributes:
        where: `only in A`, `only in B`, or `changed`: the same key with other pixels.
        source: Source id.
        modality: Modality tag.
        reason: Why the other side does not have them: `not selected`, the reason of its reject, or `not there`.
        num_samples: How many.
    """

    where: str
    source: str
    modality: str
    reason: str
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """The difference of A and B.

    Attributes:
        num_a: Samples of A.
        num_b: Samples of B.
        num_same: Samples of both, with the same pixels.
        rows: What differs, by source, modality and reason.
        keys: `key, where, source, modality, reason` of each sample that differs, sorted by key; empty unless asked for.
    """

    num_a: int
    num_b: int
    num_same: int
    rows: Sequence[DiffRow]
    keys: Sequence[tuple[str, str, str, str, str]] = ()


def diff(a: str | Path, b: str | Path, *, dataset: str | None = None, with_keys: bool = False) -> Diff:
    """Compare two subsets.

    Args:
        a: A lock file, a dataset, or a version of one as `URL@VERSION`.
        b: Likewise.
        dataset: Where the datasets of locks lie now; where the locks say, without it.
        with_keys: Whether to list the keys.

    Raises:
        SubsetError: A lock does not match its dataset.
        SampleIndexError: There is no such dataset or version.
    """
    with _both(a, b, dataset) as database:
        rows = database.sql("""SELECT "where", source, modality, reason, count(*) FROM differing
            GROUP BY ALL ORDER BY ALL""").fetchall()
        ((num_a, num_b, num_same),) = database.sql("""SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b),
            (SELECT count(*) FROM a JOIN b USING (key, pixel_sha256))""").fetchall()
        listed = 'SELECT key, "where", source, modality, reason FROM differing ORDER BY key'
        keys = database.sql(listed).fetchall() if with_keys else []
    return Diff(
        num_a=num_a,
        num_b=num_b,
        num_same=num_same,
        rows=[
            DiffRow(where=where, source=source, modality=modality, reason=reason, num_samples=num)
            for where, source, modality, reason, num in rows
        ],
        keys=keys,
    )


@contextmanager
def _both(a: str | Path, b: str | Path, dataset: str | None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the rows of both, what their datasets hold and reject, and the table `differing`."""
    with connect(memory_limit=MEMORY) as database:
        for name, url in (("a", a), ("b", b)):
            rows = _open(url, dataset)
            index = scan(rows.dataset.samples_table(rows.version))
            register_samples(database, rows.dataset, index, predicate=rows.where, version=rows.columns_version)
            columns = "key, source, modality, pixel_sha256, raw_path, raw_frame"
            run(database, f"CREATE TEMP TABLE {name} AS SELECT {columns} FROM samples WHERE {rows.where}")  # noqa: S608
            database.execute(f"CREATE TEMP TABLE all_{name} AS SELECT key FROM samples")  # noqa: S608
            forget_samples(database)
            rejects = rows.dataset.table("rejects")
            database.register(f"rejects_{name}", rejects_schema().empty_table() if rejects is None else scan(rejects))
        database.execute(f"""CREATE TEMP TABLE differing AS {_only("a", "b")} UNION ALL {_only("b", "a")}
            UNION ALL SELECT a.key, 'changed', a.source, a.modality, 'other pixels' FROM a JOIN b USING (key)
            WHERE a.pixel_sha256 != b.pixel_sha256""")  # noqa: S608 - our own names
        yield database


def _only(one: str, other: str) -> str:
    return f"""SELECT {one}.key, 'only in {one.upper()}' AS "where", {one}.source, {one}.modality,
            CASE WHEN held.key IS NOT NULL THEN 'not selected' ELSE coalesce(why.reason, 'not there') END AS reason
        FROM {one} ANTI JOIN {other} USING (key)
        LEFT JOIN all_{other} AS held ON held.key = {one}.key
        LEFT JOIN (SELECT source, raw_path, raw_frame, min(reason) AS reason FROM rejects_{other} GROUP BY 1, 2, 3)
            AS why ON (why.source, why.raw_path, why.raw_frame) = ({one}.source, {one}.raw_path, {one}.raw_frame)"""  # noqa: S608


def _open(url: str | Path, dataset: str | None) -> OpenRows:
    if is_lock(url):
        return open_rows(url, dataset=dataset)
    place, at, version = str(url).rpartition("@")
    if at and version.isdigit():
        return OpenRows(dataset=Dataset.open(place), version=int(version))
    return open_rows(url)
