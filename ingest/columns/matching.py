"""Which samples the identifiers of a table stand for: keys, groups or raw paths, in clear or as pseudonyms.

An index holds groups, and raw paths of sources that are not public, as keyed hashes. So every identifier is hashed as
ingest would have hashed it, per source, and compared in that form; nothing of it is written anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal

from ingest.privacy.pseudonyms import KeyedNames, is_format

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from shards.dataset.dataset import Dataset

By = Literal["key", "group", "raw-path"]
_SCHEME: Final = r"[a-z0-9]+://"
_GZIP: Final = r"^gzip://[^:]*::"
_DRIVE: Final = re.compile(r"^[A-Za-z]:/")
_CHUNK: Final = 1 << 16

PLAIN_PATH: Final = (
    f"array_to_string(list_reverse(string_split(regexp_replace(regexp_replace(raw_path, '{_GZIP}', ''), "
    f"'{_SCHEME}', '', 'g'), '::')), '/')"
)
"""A raw path of the index in SQL, archives as folders: `zip://a/b.png::c.zip` is `c.zip/a/b.png`."""


def plain_path(text: str) -> str:
    """A raw path as a person or the index writes it, archives as folders, with forward slashes."""
    text = re.sub(_SCHEME, "", re.sub(_GZIP, "", text.replace("\\", "/")))
    path = "/".join(reversed(text.split("::")))
    return _DRIVE.sub("", path).removeprefix("./").strip("/")


def match_ids(
    database: duckdb.DuckDBPyConnection,
    ids: Sequence[str],
    by: By,
    *,
    sources: Sequence[str],
    secret: str,
) -> None:
    """Make the table `hits` (`id` BIGINT, `key`): which sample each identifier stands for.

    Where one identifier stands for groups of several sources, or for several raw files, it is ambiguous: all are in
    `hits`, told apart by its third column `place`.

    Args:
        database: A connection with the table `samples`.
        ids: The different identifiers; `id` is the position.
        by: What they are.
        sources: Sources of the dataset to look in.
        secret: The user's secret; empty where there is none.
    """
    database.register("candidates", _reader(ids, by, sources, secret))
    database.execute("CREATE TEMP TABLE wanted AS SELECT DISTINCT * FROM candidates")
    database.unregister("candidates")
    listed = ", ".join("'" + source.replace("'", "''") + "'" for source in sources)
    here = f"source IN ({listed})" if sources else "FALSE"
    if by == "raw-path":
        _match_paths(database, here)
        return
    column = {"key": "key", "group": "group_id"}[by]
    database.execute(
        f"""CREATE TEMP TABLE hits AS SELECT DISTINCT wanted.id, samples.key, samples.source AS place
        FROM samples JOIN wanted ON samples.{column} = wanted.name
            AND (wanted.source = '' OR wanted.source = samples.source) WHERE samples.{here}"""  # noqa: S608 - quoted
    )


def find_samples(dataset: Dataset, ids: Sequence[str], by: By, *, secret: str, version: int | None = None) -> pa.Table:
    """The samples that identifiers stand for: rows of `key` and `place`, the position of the identifier.

    Args:
        dataset: The dataset.
        ids: The identifiers; each once.
        by: What they are.
        secret: The user's secret; empty where there is none.
        version: Version of the index; the newest where None.
    """
    with dataset.database("samples", version=version) as database:
        sources = [row[0] for row in database.sql("SELECT DISTINCT source FROM samples ORDER BY 1").fetchall()]
        match_ids(database, ids, by, sources=sources, secret=secret)
        return database.sql("SELECT key, id AS place FROM hits").to_arrow_table()


def _match_paths(database: duckdb.DuckDBPyConnection, here: str) -> None:
    """Paths match where one is the end of the other, folder by folder; the same path goes before all others."""
    database.execute(
        f"""CREATE TEMP TABLE hits AS
        WITH placed AS (SELECT key, source, raw_path, {PLAIN_PATH} AS path FROM samples WHERE {here}),
        named AS (SELECT *, regexp_extract(path, '[^/]*$') AS name FROM placed),
        found AS (
            SELECT wanted.id, named.key, named.source || ' ' || named.raw_path AS place,
                named.path = wanted.name AS same
            FROM named JOIN wanted ON named.name = regexp_extract(wanted.name, '[^/]*$')
                AND (wanted.source = '' OR wanted.source = named.source)
            WHERE ends_with('/' || named.path, '/' || wanted.name) OR ends_with('/' || wanted.name, '/' || named.path)
        )
        SELECT DISTINCT id, key, place FROM found
        QUALIFY same OR NOT bool_or(same) OVER (PARTITION BY id)"""  # noqa: S608 - quoted
    )


def _reader(ids: Sequence[str], by: By, sources: Sequence[str], secret: str) -> pa.RecordBatchReader:
    import pyarrow as pa

    schema = pa.schema([("id", pa.int64()), ("source", pa.string()), ("name", pa.string())])

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[tuple[int, str, str]] = []
        for row in _forms(ids, by, sources, secret):
            waiting.append(row)
            if len(waiting) == _CHUNK:
                yield _batch(waiting, schema)
                waiting = []
        yield _batch(waiting, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _batch(rows: list[tuple[int, str, str]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.RecordBatch.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def _forms(ids: Sequence[str], by: By, sources: Sequence[str], secret: str) -> Iterator[tuple[int, str, str]]:
    """The forms in which each identifier may stand in the index: position, source (empty: any) and name."""
    plain = (plain_path(text) for text in ids) if by == "raw-path" else iter(ids)
    keys = ["", secret] if secret else [""]
    names = [(source, KeyedNames(source, key)) for source in sources for key in keys] if by != "key" else []
    for number, text in enumerate(plain):
        if text:
            yield number, "", text
            for source, keyed in names:
                yield number, source, keyed.group_id(text) if by == "group" else hidden_path(keyed, text)


def hidden_path(names: KeyedNames, path: str) -> str:
    """A path with archives as folders, hashed part by part as ingest hides raw paths."""
    *folders, last = path.split("/")
    parts = (names.path(folder) if _is_archive(folder) else names.path(folder).partition(".")[0] for folder in folders)
    return "/".join([*parts, names.path(last)])


def _is_archive(folder: str) -> bool:
    extension = folder.lower().rpartition(".")[2]
    return (
        "." in folder
        and extension in {"zip", "tar", "tgz", "gz", "xz", "bz2", "zst", "7z", "rar"}
        and is_format(f".{extension}")
    )
