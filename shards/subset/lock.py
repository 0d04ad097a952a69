"""The lock file that pins a subset, and how one is made.

A lock says which dataset, which index version and which selection; and, so that nobody has to believe it, digests of
*which samples* these are (in all, and of each source and modality) and of *in which order* they stream (see
`shards.subset.chosen`). Whoever has the lock gets these samples in this order, or an error that says what differs.

Format 1, of earlier releases, has one digest: the SHA-256 over the lines `<key> <pixel_sha256>`, sorted by key. It
does not pin the order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from shards.dataset.columns import columns_version
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SubsetError
from shards.settings import load_yaml, parse
from shards.subset.chosen import Chosen, choose_from, run, samples
from shards.subset.expression import check_expression
from shards.subset.selection import Selection, predicate

if TYPE_CHECKING:
    import duckdb

__all__ = ["Lock", "LockPart", "Selection", "create", "predicate", "sorted_digest"]

DEFAULT_LANES = 64
"""Most lanes of a lock that does not say; `shards.stream.order` has the same number for what has no lock."""
LARGEST_LANES = 65_536
"""What `most_lanes` may be at most."""
_PREFIX = 4
"""Hex digits by which hashes are counted before the bucket with the threshold is looked into."""


class LockPart(BaseModel):
    """The pinned samples of one source and modality.

    Attributes:
        source: Source id.
        modality: Modality tag.
        num_samples: Samples.
        digest: Digest of these samples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    modality: str
    num_samples: int
    digest: str


class Lock(BaseModel):
    """A pinned subset, as it stands in a lock file.

    Attributes:
        format: Version of the lock format.
        dataset: URL of the dataset; in the file, a path may be relative to the file's folder.
        dataset_id: Id of the dataset, where it has one.
        index_version: The index version it was made on.
        columns_version: Version of the user's own columns, where there were any.
        selection: What was asked for.
        thresholds: Group → largest sampling hash that is in; empty where all are kept.
        num_samples: Samples.
        num_shards: Shards that hold them.
        counts: Samples by modality.
        digest: Of the samples.
        order: Of the plan, which decides the order of an epoch; empty in format 1.
        most_lanes: Most lanes of an epoch (`shards.stream.order`): as many as the ranks of the largest run. A lock that
            does not say has 64, as all orders of earlier releases.
        parts: The samples by source and modality; empty in format 1.
        keys: Name of the file beside the lock that lists the samples; empty where there is none.
        encoding: Encoding policy of the dataset.
        pipeline_version: Version of the ingest pipeline that made the samples, where it is known.
        sources: Source id → `spec` and `settings` of its last job, in the order of the jobs; with the raw data they
            make the samples again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1, 2] = 2
    dataset: str
    dataset_id: str | None = None
    index_version: int
    columns_version: int | None = None
    selection: Selection
    thresholds: dict[str, str] = {}
    num_samples: int
    num_shards: int
    counts: dict[str, int]
    digest: str
    order: str = ""
    most_lanes: Annotated[int, Field(ge=DEFAULT_LANES, le=LARGEST_LANES)] = DEFAULT_LANES
    parts: tuple[LockPart, ...] = ()
    keys: str = ""
    encoding: dict[str, Any] = {}
    pipeline_version: int | None = None
    sources: dict[str, dict[str, Any]] = {}

    def predicate(self) -> str:
        """The SQL predicate that picks the samples, one by one."""
        return predicate(self.selection, self.thresholds)

    @property
    def unpinned(self) -> str:
        """One line on what the lock does not pin, being of an earlier format; empty where it pins everything."""
        if self.order:
            return ""
        return "the lock is of an earlier format and does not pin the order; `biovfm subset create` makes one that does"

    def write(self, path: Path, *, relative: bool = False) -> None:
        """Write the lock file (YAML).

        Args:
            path: The file.
            relative: Whether to write the dataset's path relative to the file's folder, so that both can be moved.
        """
        import os

        import yaml

        from shards.files import write_text

        content = self.model_dump(mode="json", exclude_defaults=self.format == 1)
        if self.columns_version is None:
            content.pop("columns_version", None)
        if self.most_lanes == DEFAULT_LANES:
            content.pop("most_lanes", None)
        if relative and "://" not in self.dataset:
            content["dataset"] = os.path.relpath(self.dataset, path.absolute().parent)
        text = yaml.safe_dump({"format": self.format, **content}, sort_keys=False)
        write_text(path, f"# A pinned subset: `biovfm stream {path.name}` streams it.\n{text}")

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a lock file; a relative path of its dataset is taken from the file's folder.

        Raises:
            ConfigError: It is missing, or not a lock.
        """
        path = Path(path)
        lock = parse(cls, load_yaml(path), where=str(path))
        if "://" in lock.dataset or Path(lock.dataset).is_absolute():
            return lock
        try:
            found = (path.absolute().parent / lock.dataset).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, links in a circle
            raise ConfigError(f"{path}: dataset: {lock.dataset!r} is no path", hint="correct the named keys") from error
        return lock.model_copy(update={"dataset": str(found)})


def is_lock(url: str | Path) -> bool:
    """Whether a URL names a lock file rather than a dataset."""
    return str(url).endswith((".yaml", ".yml"))


def create(
    dataset: Dataset, selection: Selection, *, version: int | None = None, most_lanes: int = DEFAULT_LANES
) -> Lock:
    """Pin a selection: it is evaluated once, on the whole table, and what came of it is what the lock stands for.

    Args:
        dataset: The dataset.
        selection: What to keep.
        version: The index version; the newest where None.
        most_lanes: Most lanes of an epoch; part of the order.

    Raises:
        SubsetError: Nothing matches.
        ConfigError: `where` is no valid predicate, or not a deterministic one; or a lock has no such number of lanes.
    """
    if not DEFAULT_LANES <= most_lanes <= LARGEST_LANES:
        raise ConfigError(
            f"a lock cannot have {most_lanes:,} lanes", hint=f"give from {DEFAULT_LANES} to {LARGEST_LANES:,} of them"
        )
    pinned = dataset.version() if version is None else version
    columns = columns_version(dataset)
    with samples(dataset, pinned, predicate=selection.where, columns_version=columns, quick=True) as database:
        if selection.where:
            check_expression(database, selection.where)
        thresholds = _thresholds(database, selection) if selection.samples_by_hash else {}
        chosen = choose_from(database, predicate(selection, thresholds))
    if not chosen.num_samples:
        raise SubsetError(
            f"no sample of {dataset.url} (version {pinned}) matches: {selection.describe()}",
            hint="`biovfm stats` shows the tags that are there",
        )
    return Lock(
        dataset=dataset.url,
        dataset_id=dataset.id,
        index_version=pinned,
        columns_version=columns,
        selection=selection,
        most_lanes=most_lanes,
        thresholds=thresholds,
        encoding=dict(dataset.settings.get("encoding", {})),
        pipeline_version=dataset.settings.get("pipeline_version"),
        sources=_sources(dataset, pinned, {part.source for part in chosen.parts}),
        **facts_of(chosen),
    )


def _sources(dataset: Dataset, version: int, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """What the jobs up to a version say of how each source was ingested."""
    found: dict[str, dict[str, Any]] = {}
    for job in dataset.jobs():
        for source, entry in {job.get("source", ""): job, **job.get("sources", {})}.items():
            if job["version"] <= version and source in wanted and entry.get("spec"):
                found[source] = {"spec": entry["spec"], "settings": entry.get("settings", {})}
    return found


def facts_of(chosen: Chosen) -> dict[str, Any]:
    """What a lock states of its samples."""
    counts: dict[str, int] = {}
    for part in sorted(chosen.parts, key=lambda part: part.modality):
        counts[part.modality] = counts.get(part.modality, 0) + part.num_samples
    parts = tuple(
        LockPart(source=part.source, modality=part.modality, num_samples=part.num_samples, digest=part.digest)
        for part in chosen.parts
    )
    return {
        "num_samples": chosen.num_samples,
        "num_shards": len(chosen.shards),
        "counts": counts,
        "digest": chosen.digest,
        "order": chosen.order_digest(),
        "parts": parts,
    }


def samples_of(
    lock: Lock, dataset: Dataset, version: int, *, dictionaries: Sequence[str] = ("shard",), quick: bool = False
) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
    """A connection on which `samples` has all that a lock's predicate names, see `shards.subset.chosen.samples`."""
    return samples(
        dataset,
        version,
        dictionaries=dictionaries,
        predicate=lock.selection.where,
        columns_version=lock.columns_version,
        quick=quick,
    )


def sorted_digest(dataset: Dataset, version: int, where: str) -> str:
    """The digest of format 1; it takes a sort of all keys.

    Raises:
        SampleIndexError: There is no such version.
        ConfigError: The predicate does not work.
    """
    digest = hashlib.sha256()
    with samples(dataset, version) as database:
        lines = f"SELECT key || ' ' || pixel_sha256 || chr(10) AS line, key FROM samples WHERE {where}"  # noqa: S608
        run(database, f"CREATE TEMP TABLE lines AS {lines}")
        for batch in database.sql("SELECT line FROM lines ORDER BY key").to_arrow_reader(1 << 16):
            digest.update("".join(batch.column(0).to_pylist()).encode())
    return f"sha256:{digest.hexdigest()}"


def _thresholds(database: duckdb.DuckDBPyConnection, selection: Selection) -> Mapping[str, str]:
    """The largest hash that is in, per group.

    Hashes are counted by their first digits; only those of the bucket that holds the threshold are looked at one by
    one. So the memory does not grow with the samples.
    """
    hashed = f"""SELECT {selection.group_expression()} AS member, {selection.hash_expression()} AS hash
        FROM samples WHERE {selection.tag_predicate()}"""  # noqa: S608
    run(
        database,
        f"""CREATE OR REPLACE TEMP TABLE buckets AS
        SELECT member, substr(hash, 1, {_PREFIX}) AS head, count(*) AS num FROM ({hashed}) GROUP BY 1, 2""",  # noqa: S608
    )
    keep = str(selection.count) if selection.count is not None else f"round({selection.fraction} * sum(num))"
    wanted = database.sql(f"SELECT member, {keep}::BIGINT, sum(num)::BIGINT FROM buckets GROUP BY 1").fetchall()  # noqa: S608
    found: dict[str, str] = {}
    for member, num, total in wanted:
        rows = database.execute("SELECT head, num FROM buckets WHERE member = ? ORDER BY head", [member]).fetchall()
        if num > 0:
            found[member] = _nth_hash(database, hashed, member, min(num, total), rows)
    return found


def _nth_hash(
    database: duckdb.DuckDBPyConnection, hashed: str, member: str, num: int, buckets: list[tuple[str, int]]
) -> str:
    """The `num`-th hash of a group, from 1."""
    ends = np.cumsum([size for _, size in buckets])
    at = int(np.searchsorted(ends, num))
    before = int(ends[at - 1]) if at else 0
    sql = f"""SELECT hash FROM ({hashed}) WHERE member = ? AND substr(hash, 1, {_PREFIX}) = ?
        ORDER BY hash LIMIT 1 OFFSET ?"""  # noqa: S608
    ((found,),) = run(database, sql, params=[member, buckets[at][0], num - before - 1])
    return str(found)
