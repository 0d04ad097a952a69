"""The list of a lock's samples, beside the lock: a Parquet file that says which samples are missing or changed.

Columns: `source`, `modality`, `key`, `pixel_sha256`, sorted by source, modality and key.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SubsetError
from shards.files import naming
from shards.subset.chosen import choose_from, run, samples
from shards.subset.lock import Lock, samples_of

if TYPE_CHECKING:
    import duckdb

LISTED = "(key, pixel_sha256) IN (SELECT key, pixel_sha256 FROM listed)"
"""The predicate of the samples that `register_keys` has registered."""
_COLUMNS = "source, modality, key, pixel_sha256"


def keys_name(lock: Path) -> str:
    """The name of the list beside a lock: `ct.lock.yaml` has `ct.lock.keys.parquet`."""
    return f"{lock.stem}.keys.parquet"


def keys_of(lock: Lock, path: Path) -> Path | None:
    """The list that a lock file names, None where it names none or the file is not there."""
    found = path.parent / lock.keys if lock.keys else None
    return found if found is not None and found.is_file() else None


def write_keys(lock: Lock, dataset: Dataset, path: Path) -> None:
    """Write the list of a lock's samples; a few row groups in memory, the sort on disk where it is large."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with samples_of(lock, dataset, lock.index_version, dictionaries=()) as database:
            columns = ", ".join(f"{name}::VARCHAR AS {name}" for name in _COLUMNS.split(", "))
            run(database, f"CREATE TEMP TABLE listed AS SELECT {columns} FROM samples WHERE {lock.predicate()}")  # noqa: S608
            reader = database.sql(f"SELECT * FROM listed ORDER BY {_COLUMNS}").to_arrow_reader(1 << 16)  # noqa: S608
            schema = pa.schema([(name, pa.string()) for name in _COLUMNS.split(", ")])
            with naming(path), pq.ParquetWriter(partial, schema, compression="zstd") as writer:
                for batch in reader:
                    writer.write_batch(batch.cast(schema))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def register_keys(database: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Register a list as the table `listed`.

    Raises:
        ConfigError: It is no such list.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    try:
        database.register("listed", ds.dataset(path, format="parquet"))
        database.execute(f"SELECT {_COLUMNS} FROM listed LIMIT 0").fetchall()  # noqa: S608
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path} is no list of keys: {type(error).__name__}", hint="make the lock again") from error


def check_keys(lock: Lock, path: Path) -> None:
    """Compare a list with its lock.

    Raises:
        SubsetError: The list is of other samples.
    """
    from shards.dataset.query import connect

    with connect() as database:
        register_keys(database, path)
        rows = "(SELECT *, '' AS shard, row_number() OVER () - 1 AS shard_row FROM listed)"
        database.execute(f"CREATE TEMP TABLE samples AS SELECT * FROM {rows}")  # noqa: S608
        digest = choose_from(database, "TRUE").digest
    if lock.order and digest != lock.digest:
        raise SubsetError(f"{path} lists other samples than the lock", hint="make the lock again with --with-keys")


def compare_keys(dataset: Dataset, version: int, path: Path) -> dict[tuple[str, str], dict[str, int]]:
    """Per source and modality: `pinned`, `found`, `missing` and `changed` samples of a list."""
    with samples(dataset, version, dictionaries=()) as database:
        register_keys(database, path)
        rows = database.sql("""SELECT listed.source, listed.modality, count(*),
                count(*) FILTER (samples.key IS NULL),
                count(*) FILTER (samples.key IS NOT NULL AND samples.pixel_sha256 != listed.pixel_sha256)
            FROM listed LEFT JOIN samples USING (key) GROUP BY 1, 2 ORDER BY 1, 2""").fetchall()
    return {
        (source, modality): {"pinned": num, "found": num - gone, "missing": gone, "changed": other}
        for source, modality, num, gone, other in rows
    }


def differing_keys(dataset: Dataset, version: int, path: Path) -> list[dict[str, str]]:
    """The samples of a list that are `missing` or `changed`, by key."""
    with samples(dataset, version, dictionaries=()) as database:
        register_keys(database, path)
        rows = database.sql("""SELECT listed.key, listed.source, listed.modality,
                if(samples.key IS NULL, 'missing', 'changed')
            FROM listed LEFT JOIN samples USING (key)
            WHERE samples.key IS NULL OR samples.pixel_sha256 != listed.pixel_sha256 ORDER BY 1""").fetchall()
    return [dict(zip(("key", "source", "modality", "what"), row, strict=True)) for row in rows]
