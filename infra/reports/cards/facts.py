"""What a card says: counted in the tables of a dataset or lock, and told by the sources' own entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.reports.cards.licences import UNKNOWN, classes_of
from infra.reports.cards.shard_files import ShardFiles, shard_files
from shards.dataset.columns import ColumnFacts, describe_columns
from shards.dataset.left_out import left_out
from shards.subset.chosen import samples
from shards.subset.data_list import OpenRows, open_rows
from shards.subset.lock import Lock, is_lock


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What is known of one source.

    Attributes:
        source: Source id.
        name: Its name.
        url: Where it is obtained.
        citation: What to cite; empty where that is not known.
        samples: Images of it.
        groups: Modality → patients, volumes, videos or slides; one of several modalities counts for each.
        modalities: Modality → images.
        licences: Licence → images, most first.
        licence_classes: Licence → its class (`infra.reports.cards.licences.CLASSES`).
        deidentified: Whether it is published de-identified.
        rejects: Reason → images that the jobs before this version did not take.
    """

    source: str
    name: str
    url: str
    citation: str
    samples: int
    groups: Mapping[str, int]
    modalities: Mapping[str, int]
    licences: Mapping[str, int]
    licence_classes: Mapping[str, str]
    deidentified: bool
    rejects: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What a card says of a dataset or lock.

    Attributes:
        title: Name of the dataset's folder or of the lock.
        lock: The lock, None for a whole dataset.
        dataset_id: Id of the dataset, None where it has none.
        version: Index version.
        samples: Images.
        num_bytes: Bytes of the images as they are stored.
        modalities: Modality → images.
        sources: Per source.
        num_shards: Shards that hold them.
        shards: How these are named.
        others: Images of these shards that are not part of it.
        encoding: How images are stored.
        pipeline_version: Of the ingest pipeline; None where it is not known.
        deidentification: The statement of `dataset.json`.
        burned_in: What is known of text in the pixels → images.
        columns: Columns of the user's own.
        sizes: Least and greatest width and height in px.
    """

    title: str
    lock: Lock | None
    dataset_id: str | None
    version: int
    samples: int
    num_bytes: int
    modalities: Mapping[str, int]
    sources: Sequence[SourceFacts]
    num_shards: int
    shards: ShardFiles
    others: int
    encoding: Mapping[str, Any]
    pipeline_version: int | None
    deidentification: Mapping[str, Any]
    burned_in: Mapping[str, int]
    columns: Sequence[ColumnFacts]
    sizes: tuple[int, int, int, int]

    @property
    def unknown_licences(self) -> list[str]:
        """One line per source and licence that says nothing, or of which it is not known what it allows."""
        return [
            f"{one.source}: {num:,} images {_unknown(licence)}; ask at {one.url or 'where they came from'}"
            for one in self.sources
            for licence, num in one.licences.items()
            if licence == UNKNOWN or one.licence_classes[licence] == UNKNOWN
        ]


def gather(url: str | Path, *, dataset: str | None = None) -> CardFacts:
    """Count a dataset or lock for its card.

    Args:
        url: A lock file (compared with its dataset first) or a dataset.
        dataset: Where the lock's dataset lies now.

    Raises:
        SubsetError: The lock does not match its dataset.
        SampleIndexError: The dataset holds nothing.
    """
    rows = open_rows(url, dataset=dataset)
    lock = Lock.read(url) if is_lock(url) else None
    with samples(rows.dataset, rows.version, predicate=rows.where, columns_version=rows.columns_version) as database:
        database.execute(f"CREATE TEMP VIEW chosen AS SELECT * FROM samples WHERE {rows.where}")  # noqa: S608

        def ask(sql: str) -> list[Any]:
            return database.sql(sql).fetchall()

        (totals,) = ask("""SELECT count(*), coalesce(sum(byte_length), 0)::BIGINT, min(width), max(width), min(height),
            max(height) FROM chosen""")
        shards = [str(row[0]) for row in ask("SELECT DISTINCT shard FROM chosen ORDER BY 1")]
        within = "SELECT count(*) FROM samples SEMI JOIN (SELECT DISTINCT shard FROM chosen) AS here USING (shard)"
        ((held,),) = ask(within)
        burned = dict(ask("SELECT coalesce(burned_in, 'not asked'), count(*) FROM chosen GROUP BY 1 ORDER BY 1"))
        by_tag = ask("SELECT source, modality, licence, count(*) FROM chosen GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")
        groups = ask("SELECT source, modality, count(DISTINCT group_id) FROM chosen GROUP BY 1, 2")
    return CardFacts(
        title=Path(str(url).rstrip("/")).name.removesuffix(".yaml").removesuffix(".lock"),
        lock=lock,
        dataset_id=rows.dataset.id,
        version=rows.version,
        samples=totals[0],
        num_bytes=totals[1],
        modalities=_sum(by_tag, 1),
        sources=_sources(rows, by_tag, groups),
        num_shards=len(shards),
        shards=shard_files(rows.dataset.store, shards),
        others=held - totals[0],
        encoding=dict(rows.dataset.settings.get("encoding", {})),
        pipeline_version=rows.dataset.settings.get("pipeline_version"),
        deidentification=dict(rows.dataset.settings.get("deidentification", {})),
        burned_in=burned,
        columns=describe_columns(rows.dataset),
        sizes=(totals[2] or 0, totals[3] or 0, totals[4] or 0, totals[5] or 0),
    )


def _unknown(licence: str) -> str:
    if licence.lower().startswith(UNKNOWN):
        return "without a known licence"
    return f"under {licence!r}, of which it is not known what it allows"


def _sum(rows: Sequence[tuple[str, str, str, int]], column: int) -> dict[str, int]:
    """Images by one of the columns, most first."""
    found: dict[str, int] = {}
    for row in rows:
        name = str(row[column]) or UNKNOWN
        found[name] = found.get(name, 0) + row[3]
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _sources(
    rows: OpenRows, by_tag: Sequence[tuple[str, str, str, int]], groups: Sequence[tuple[str, str, int]]
) -> list[SourceFacts]:
    specs = _specs(rows)
    rejects = left_out(rows.dataset, rows.version)
    found = []
    for source in sorted({row[0] for row in by_tag}):
        mine = [row for row in by_tag if row[0] == source]
        spec = specs.get(source, {})
        licences = _sum(mine, 2)
        found.append(
            SourceFacts(
                source=source,
                name=spec.get("name", "") or source,
                url=spec.get("url", ""),
                citation=spec.get("citation", ""),
                samples=sum(row[3] for row in mine),
                groups={modality or UNKNOWN: num for name, modality, num in groups if name == source},
                modalities=_sum(mine, 1),
                licences=licences,
                licence_classes=classes_of(licences, spec),
                deidentified=bool(spec.get("deidentified", False)),
                rejects=rejects.get(source, {}),
            )
        )
    return found


def _specs(rows: OpenRows) -> dict[str, Mapping[str, Any]]:
    """Source id → its entry: that of the version's last job, and of the catalogue what the job does not say."""
    from ingest.source.spec import catalogue_ids, load_spec

    found: dict[str, Mapping[str, Any]] = {}
    for job in (job for job in rows.dataset.jobs() if job["version"] <= rows.version):
        for source, entry in {job.get("source", ""): job, **job.get("sources", {})}.items():
            known = load_spec(source).model_dump(mode="json") if source in catalogue_ids() else {}
            found[source] = {**known, **found.get(source, {}), **entry.get("spec", {})}
    return found
