"""Subsets by tag, and the lock file that pins one.

A lock says which dataset, which index version and which selection; and, so that nobody has to believe it, how many
samples that is and a digest over their keys and pixel hashes. Whoever has the lock gets these samples or an error.

Sampling is by hash: a sample is in when `md5("<seed>:<key>")` is at most a threshold; the lock keeps one threshold
a group. So the choice depends on the key alone, a larger fraction contains the smaller one, and a reader can decide
sample by sample without sorting anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from shards.dataset.dataset import Dataset
from shards.dataset.query import quote
from shards.errors import ConfigError, SubsetError
from shards.schema import MODALITIES
from shards.settings import load_yaml, parse

if TYPE_CHECKING:
    import duckdb

GroupColumn = Literal["modality", "source", "anatomy", "licence"]


class Selection(BaseModel):
    """Which samples of a dataset; empty means all.

    Attributes:
        modality: Modality tags to keep.
        source: Source ids to keep.
        anatomy: Body parts to keep.
        licence: Licences to keep.
        where: A DuckDB predicate over the index columns, e.g. `width >= 256 AND channels = 1`.
        fraction: Share of each group to keep.
        count: Samples of each group to keep (all of a smaller group).
        per: What a group is, for `fraction` and `count`; empty takes the selection as one group.
        seed: Seed of the sampling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    modality: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    anatomy: tuple[str, ...] = ()
    licence: tuple[str, ...] = ()
    where: str | None = None
    fraction: float | None = Field(default=None, gt=0, le=1)
    count: int | None = Field(default=None, gt=0)
    per: tuple[GroupColumn, ...] = ("modality",)
    seed: int = 0

    @field_validator("modality")
    @classmethod
    def _known_modalities(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        canonical = {tag.lower(): tag for tag in MODALITIES}
        unknown = [tag for tag in tags if tag.lower() not in canonical]
        if unknown:
            raise ValueError(f"no modality {unknown[0]!r}; there are {', '.join(MODALITIES)}")
        return tuple(canonical[tag.lower()] for tag in tags)

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if self.fraction is not None and self.count is not None:
            raise ValueError("give fraction or count, not both")
        return self

    @property
    def samples_by_hash(self) -> bool:
        """Whether only a part of each group is kept."""
        return self.count is not None or (self.fraction is not None and self.fraction < 1)

    def tag_predicate(self) -> str:
        """The SQL predicate of the tags and of `where`, without the sampling."""
        parts = [
            f"{column} IN ({', '.join(map(quote, values))})"
            for column in ("modality", "source", "anatomy", "licence")
            if (values := getattr(self, column))
        ]
        if self.where:
            parts.append(f"({self.where})")
        return " AND ".join(parts) or "TRUE"

    def group_expression(self) -> str:
        """The SQL expression of a sample's group."""
        return f"concat_ws('|', {', '.join(self.per)})" if self.per else "''"

    def hash_expression(self) -> str:
        """The SQL expression that sampling compares with the threshold."""
        return f"md5('{self.seed}:' || key)"


class Lock(BaseModel):
    """A pinned subset, as it stands in a lock file.

    Attributes:
        format: Version of the lock format.
        dataset: URL of the dataset.
        index_version: The index version it was made on.
        selection: What was asked for.
        thresholds: Group → largest sampling hash that is in; empty where all are kept.
        num_samples: Samples.
        num_shards: Shards that hold them.
        counts: Samples by modality.
        digest: `sha256:` over the lines `<key> <pixel_sha256>`, sorted by key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    dataset: str
    index_version: int
    selection: Selection
    thresholds: dict[str, str] = {}
    num_samples: int
    num_shards: int
    counts: dict[str, int]
    digest: str

    def predicate(self) -> str:
        """The SQL predicate that picks the samples, one by one."""
        return predicate(self.selection, self.thresholds)

    def write(self, path: Path) -> None:
        """Write the lock file (YAML)."""
        import yaml

        from shards.files import write_text

        text = yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=False), sort_keys=False)
        write_text(path, f"# A pinned subset: `biovfm stream {path.name}` streams it.\n{text}")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a lock file.

        Raises:
            ConfigError: It is missing, or not a lock.
        """
        return parse(cls, load_yaml(path), where=str(path))


def predicate(selection: Selection, thresholds: Mapping[str, str]) -> str:
    """The SQL predicate of a selection with its sampling thresholds."""
    if not selection.samples_by_hash:
        return selection.tag_predicate()
    cases = " ".join(f"WHEN {quote(group)} THEN {quote(value)}" for group, value in sorted(thresholds.items()))
    limit = f"CASE {selection.group_expression()} {cases} END" if cases else "''"
    return f"{selection.tag_predicate()} AND {selection.hash_expression()} <= {limit}"


def create(dataset: Dataset, selection: Selection, *, version: int | None = None) -> Lock:
    """Pin a selection.

    Args:
        dataset: The dataset.
        selection: What to keep.
        version: The index version; the newest where None.

    Raises:
        SubsetError: Nothing matches.
        ConfigError: `where` is no valid predicate.
    """
    pinned = dataset.version() if version is None else version
    with dataset.database("samples", version=pinned) as database:
        thresholds = _thresholds(database, selection) if selection.samples_by_hash else {}
        facts = _facts(database, predicate(selection, thresholds))
    if not facts["num_samples"]:
        raise SubsetError(
            f"no sample of {dataset.url} (version {pinned}) matches: {selection.tag_predicate()}",
            hint="`biovfm stats` shows the tags that are there",
        )
    return Lock(dataset=dataset.url, index_version=pinned, selection=selection, thresholds=thresholds, **facts)


def verify(lock: Lock, dataset: Dataset) -> None:
    """Recompute a lock from its dataset.

    Raises:
        SubsetError: The samples are not the ones that were locked; says what differs.
    """
    with dataset.database("samples", version=lock.index_version) as database:
        facts = _facts(database, lock.predicate())
    for name, label in (("num_samples", "samples"), ("num_shards", "shards"), ("digest", "digest")):
        if facts[name] != getattr(lock, name):
            raise SubsetError(
                f"{dataset.url} has changed under the lock: {label} {facts[name]}, locked {getattr(lock, name)}",
                hint="restore the dataset, or make a new lock with `biovfm subset create`",
            )


def _run(database: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    import duckdb

    try:
        return database.sql(sql)
    except duckdb.Error as error:
        raise ConfigError(
            f"the predicate does not work: {str(error).splitlines()[0]}",
            hint='--where takes a DuckDB expression over the index columns, e.g. "width >= 256"',
        ) from error


def _thresholds(database: duckdb.DuckDBPyConnection, selection: Selection) -> dict[str, str]:
    keep = str(selection.count) if selection.count is not None else f"round({selection.fraction} * total)"
    sql = f"""
        SELECT member, max(hash) FROM (
            SELECT {selection.group_expression()} AS member, {selection.hash_expression()} AS hash,
                row_number() OVER (PARTITION BY member ORDER BY hash) AS rank,
                count(*) OVER (PARTITION BY member) AS total
            FROM samples WHERE {selection.tag_predicate()})
        WHERE rank <= {keep} GROUP BY 1"""  # noqa: S608 - the predicate is the user's own, on a connection that reaches nothing else
    return dict(_run(database, sql).fetchall())


def _facts(database: duckdb.DuckDBPyConnection, where: str) -> dict[str, Any]:
    by_modality = _run(
        database,
        f"SELECT modality, count(*), count(DISTINCT shard) FROM samples WHERE {where} GROUP BY 1 ORDER BY 1",  # noqa: S608
    ).fetchall()
    lines = _run(
        database,
        f"SELECT key || ' ' || pixel_sha256 || chr(10) AS line FROM samples WHERE {where} ORDER BY key",  # noqa: S608
    )
    digest = hashlib.sha256()
    for batch in lines.to_arrow_reader(1 << 16):
        digest.update("".join(batch.column(0).to_pylist()).encode())
    return {
        "num_samples": sum(count for _, count, _ in by_modality),
        "num_shards": sum(shards for *_, shards in by_modality),
        "counts": {modality: count for modality, count, _ in by_modality},
        "digest": f"sha256:{digest.hexdigest()}",
    }
