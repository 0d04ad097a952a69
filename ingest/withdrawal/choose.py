"""Which samples a withdrawal takes: by group, key, raw path or source, in the newest version of a dataset.

What a person states is looked for as it stands (a pseudonym, a raw path that the dataset keeps readable) and as what
the dataset makes of it: the keyed hash of a patient's own identifier or of a raw path, under the user's secret and
under the key of public sources. A raw path may also be a folder or an archive: everything below it goes.

A source narrows the others down; alone it means all of its samples.

Images that a job gave up after its commit because another job held the same pixels (`ingest.job.concede`) have no row
and still lie in a shard. Those with withdrawn pixels, or of a withdrawn group, go with the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from pydantic import SecretStr

from ingest.columns.matching import PLAIN_PATH, hidden_path, plain_path
from ingest.privacy.pseudonyms import KeyedNames
from ingest.privacy.tombstones import Marker
from ingest.raw.web_address import without_secrets
from shards.dataset.dataset import CONCEDED, Dataset
from shards.dataset.shard_file import meta_of, read_blocks

if TYPE_CHECKING:
    import duckdb

SAMPLE_COLUMNS: Final = ("key", "source", "modality", "group_id", "pixel_sha256", "raw_path", "raw_frame")
_BLOCK: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a person wants withdrawn.

    Attributes:
        groups: A patient's own identifiers, as the source's grouping rule sees them, or pseudonyms of groups.
        keys: Sample keys.
        raw_paths: Raw paths as the source has them, or as the tables name them; folders and archives too.
        sources: Source ids; with any of the others, only samples of these.
    """

    groups: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    raw_paths: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def is_whole_sources(self) -> bool:
        """Whether sources are asked for and nothing else."""
        return bool(self.sources) and not (self.groups or self.keys or self.raw_paths)

    def marks(self, marker: Marker) -> list[str]:
        """Keyed marks of the request, by which a repeated one is known."""
        sources = "\0".join(sorted(self.sources)) if not self.is_whole_sources else ""
        stated = [("group", text) for text in self.groups]
        stated += [("key", text) for text in self.keys]
        stated += [("raw path", text) for text in self.raw_paths]
        stated += [("source", text) for text in (self.sources if self.is_whole_sources else ())]
        return [marker.asked(kind, text, sources) for kind, text in stated]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What goes.

    Attributes:
        version: The index version that was looked at.
        samples: Rows of `SAMPLE_COLUMNS`; those without a row in the index (`copies`) too.
        groups: Rows of `source`, `group_id`: groups that were asked for.
        paths: Rows of `source`, `raw_path`: raw files of which nothing stays.
        shards: Shards that hold copies without a row.
        num_copies: How many of the samples are such copies.
    """

    version: int
    samples: pa.Table
    groups: pa.Table
    paths: pa.Table
    shards: tuple[str, ...] = ()
    num_copies: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not len(self.samples) and not len(self.paths)


def choose(dataset: Dataset, asked: Asked, secret: SecretStr) -> Chosen:
    """Find what a withdrawal takes.

    Args:
        dataset: The dataset.
        asked: What is to go.
        secret: Its secret.

    Raises:
        SampleIndexError: The dataset holds nothing yet.
        StoreError: The storage failed.
    """
    version = int(dataset.samples_table().version())
    sources = _sources(dataset, version)
    names = {source: _names(source, secret) for source in sources}
    groups = _groups(dataset, asked, names)
    stated = _stated_paths(asked, names)
    with dataset.database("samples", "rejects", "raw_files", version=version) as database:
        for name, rows in (("groups", groups), ("stated", stated), ("wanted_keys", _column("key", asked.keys))):
            database.register(name, rows)
        database.register("wanted_sources", _column("source", asked.sources))
        columns = ", ".join(SAMPLE_COLUMNS)
        database.execute(
            f"CREATE TEMP TABLE chosen AS SELECT {columns} FROM samples WHERE {_condition(asked, of_samples=True)}"  # noqa: S608
        )
        samples = database.sql(f"SELECT {columns} FROM chosen ORDER BY key").to_arrow_table()  # noqa: S608
        paths = _paths(database, asked)
    copies, shards = _copies(dataset, version, samples, groups)
    schema = pa.schema([pa.field(name, pa.string()) for name in SAMPLE_COLUMNS])
    return Chosen(
        version=version,
        samples=pa.concat_tables([samples.cast(schema), pa.Table.from_pylist(copies, schema=schema)]),
        groups=groups,
        paths=paths,
        shards=tuple(shards),
        num_copies=len(copies),
    )


def _sources(dataset: Dataset, version: int) -> list[str]:
    found = dataset.query("SELECT DISTINCT source FROM samples ORDER BY 1", version=version)
    others = dataset.query("SELECT DISTINCT source FROM raw_files UNION SELECT DISTINCT source FROM rejects")
    return sorted({*found["source"].to_pylist(), *others["source"].to_pylist()})


def _names(source: str, secret: SecretStr) -> tuple[KeyedNames, ...]:
    """The ways in which a source's groups and raw paths may be hashed in a dataset."""
    return KeyedNames(source), KeyedNames(source, secret.get_secret_value())


def _groups(dataset: Dataset, asked: Asked, names: dict[str, tuple[KeyedNames, ...]]) -> pa.Table:
    """The pseudonyms of the groups asked for: those of each identifier, and what is a pseudonym already.

    A grouping pattern of several parts joins them by NUL; a person writes a slash.
    """
    rows = {
        (source, hashed)
        for text in asked.groups
        for source, keyed in names.items()
        for way in keyed
        for hashed in (text, way.group_id(text), way.group_id(text.replace("/", "\0")))
        if not asked.sources or source in asked.sources
    }
    return _held(dataset, _pairs(rows, "group_id"))


def _pairs(rows: set[tuple[str, str]], name: str) -> pa.Table:
    ordered = sorted(rows)
    sources, values = [source for source, _ in ordered], [value for _, value in ordered]
    return pa.table({"source": pa.array(sources, pa.string()), name: pa.array(values, pa.string())})


def _held(dataset: Dataset, groups: pa.Table) -> pa.Table:
    """Those of some groups that the index holds."""
    found = dataset.query(
        "SELECT DISTINCT source, group_id FROM samples JOIN asked USING (source, group_id)", asked=groups
    )
    return found.cast(groups.schema)


def _stated_paths(asked: Asked, names: dict[str, tuple[KeyedNames, ...]]) -> pa.Table:
    """The raw paths asked for, archives as folders, as they stand and as keyed hashes."""
    plain = [plain_path(without_secrets(text)) for text in asked.raw_paths]
    rows = {
        (source, path)
        for text in plain
        for source, keyed in names.items()
        for path in (text, *(hidden_path(way, text) for way in keyed))
        if text
    }
    return _pairs(rows, "path")


def _column(name: str, values: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.string())})


_BELOW: Final = f"""EXISTS (SELECT 1 FROM stated WHERE stated.source = rows.source AND
    ({PLAIN_PATH} = stated.path OR starts_with({PLAIN_PATH}, stated.path || '/')))"""  # noqa: S608 - our own text


def _condition(asked: Asked, *, of_samples: bool) -> str:
    """Which rows of the index, or of another table that has raw paths, are asked for."""
    either = []
    if asked.groups and of_samples:
        either.append("(source, group_id) IN (SELECT source, group_id FROM groups)")
    if asked.keys and of_samples:
        either.append("key IN (SELECT key FROM wanted_keys)")
    if asked.raw_paths:
        table = "samples" if of_samples else "rows"
        either.append(_BELOW.replace("rows.", f"{table}."))
    if not either:
        either.append("true" if asked.is_whole_sources else "false")
    within = " AND source IN (SELECT source FROM wanted_sources)" if asked.sources else ""
    return f"({' OR '.join(either)}){within}"


def _paths(database: duckdb.DuckDBPyConnection, asked: Asked) -> pa.Table:
    """Raw files of which nothing stays: all their samples go, or they were asked for."""
    return database.sql(
        f"""SELECT DISTINCT source, raw_path FROM chosen
        WHERE (source, raw_path) NOT IN (
            SELECT source, raw_path FROM samples WHERE key NOT IN (SELECT key FROM chosen)
            AND raw_path IN (SELECT raw_path FROM chosen))
        UNION SELECT DISTINCT source, raw_path FROM
            (SELECT source, raw_path FROM raw_files UNION SELECT source, raw_path FROM rejects) rows
        WHERE {_condition(asked, of_samples=False)} ORDER BY ALL"""  # noqa: S608 - our own text
    ).to_arrow_table()


def _copies(
    dataset: Dataset, version: int, samples: pa.Table, groups: pa.Table
) -> tuple[list[dict[str, Any]], list[str]]:
    """Images without a row whose pixels or group go, and the shards that hold them."""
    conceded = dataset.query(
        "SELECT DISTINCT job_id, source FROM rejects WHERE detail = ? AND job_id IS NOT NULL", params=[CONCEDED]
    )
    if not len(conceded):
        return [], []
    shards = dataset.query(
        "SELECT shard, list(shard_row) AS shard_rows FROM samples WHERE shard IN "
        "(SELECT shard FROM samples JOIN conceded USING (job_id, source)) GROUP BY shard ORDER BY shard",
        version=version,
        conceded=conceded,
    )
    hashes = frozenset(samples["pixel_sha256"].to_pylist())
    members = frozenset(zip(groups["source"].to_pylist(), groups["group_id"].to_pylist(), strict=True))
    found, where = [], []
    for shard, rows in zip(shards["shard"].to_pylist(), shards["shard_rows"].to_pylist(), strict=True):
        for meta in _unnamed(dataset, shard, frozenset(rows)):
            if meta["pixel_sha256"] in hashes or (meta["source"], meta["group_id"]) in members:
                found.append(meta)
                where.append(shard)
    return found, sorted(set(where))


def _unnamed(dataset: Dataset, shard: str, rows: frozenset[int]) -> Iterator[dict[str, Any]]:
    """What the JSON of each sample says that lies in a shard without a row."""
    with dataset.store.open_stream(shard) as stream:
        for number, block in enumerate(read_blocks(stream, name=shard)):
            if number not in rows:
                start = _BLOCK + -(-block.byte_length // _BLOCK) * _BLOCK + _BLOCK
                meta = meta_of(block.data[start:].rstrip(b"\0"), where=f"{shard}: {block.key}")
                yield {name: str(meta.get(name, "")) for name in SAMPLE_COLUMNS} | {"key": block.key}
