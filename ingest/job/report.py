"""What a job tells: how far it is while it runs, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ingest.job.list import Listing
from ingest.job.promote import Pack
from ingest.staging.context import MapContext, UnitReport
from ingest.staging.resolution import Resolution
from shards.dataset.dataset import Dataset

Stage = Literal["list", "series", "map", "resolve", "promote", "commit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is.

    Attributes:
        stage: What is being done.
        done: Raw files read (`map`) or shards made (`promote`).
        total: All of them; 0 while unknown.
        kept: Images staged so far.
        rejected: Images and files rejected so far.
    """

    stage: Stage
    done: int = 0
    total: int = 0
    kept: int = 0
    rejected: int = 0


Watcher = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a job did.

    Attributes:
        job_id: The job.
        source: Source id.
        dataset: The dataset's URL.
        version: Index version after the job.
        repeated: The job was committed before; nothing was done now (the counts are of that time).
        pending: Other tasks that share the job have units left; nothing is committed yet.
        files: Raw files listed.
        ignored: Files that no glob or reader asks for, by extension.
        items: Images, and files (or the rest of one) that could not be read: `kept + rejected`.
        kept: Images that the dataset gained.
        rejected: Images and files in `rejects/`.
        reasons: Rejects by reason.
        modalities: Kept images by modality.
        shards: Shards made.
        units: Units of work.
        resumed_units: Units that an earlier, interrupted run had finished.
        skipped_buckets: Buckets of near-duplicate candidates that were too crowded to search.
        eval_overlap: Evaluation task → images that match one of its images (rejected or not, by policy).
        volumes: What was made of DICOM series (`ingest.job.place`); empty where there are none.
        notes: Sentences that the user should read.
        seconds: Wall time.
    """

    job_id: str
    source: str
    dataset: str
    version: int
    repeated: bool = False
    pending: bool = False
    files: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    items: int = 0
    kept: int = 0
    rejected: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    modalities: Mapping[str, int] = field(default_factory=dict)
    shards: int = 0
    units: int = 0
    resumed_units: int = 0
    skipped_buckets: int = 0
    eval_overlap: Mapping[str, int] = field(default_factory=dict)
    volumes: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def report_of(
    context: MapContext,
    listing: Listing,
    units: Sequence[UnitReport],
    resolution: Resolution,
    packs: Sequence[Pack],
) -> JobReport:
    """The counts of a run that is about to commit."""
    reasons: Counter[str] = Counter()
    for unit in units:
        reasons.update(unit.rejected)
        reasons.update(reason for reason, _ in resolution.dropped(unit.index).values())
    modalities: Counter[str] = Counter()
    for pack in packs:
        modalities[pack.modality] += sum(len(piece.rows) for piece in pack.pieces)
    kept, rejected = modalities.total(), reasons.total()
    return JobReport(
        job_id=context.job_id,
        source=context.spec.id,
        dataset=context.dataset_url,
        version=-1,
        files=len(listing.items),
        ignored=dict(listing.ignored),
        items=sum(unit.items for unit in units),
        kept=kept,
        rejected=rejected,
        reasons=dict(sorted(reasons.items())),
        modalities=dict(sorted(modalities.items())),
        shards=len(packs),
        units=len(units),
        skipped_buckets=resolution.skipped_buckets,
        eval_overlap=resolution.overlap,
    )


def committed_report(dataset: Dataset, context: MapContext, listing: Listing, num_units: int) -> JobReport:
    """The counts of a job that is committed already, read from the tables."""
    kept = _count_by(dataset, "samples", "modality", context.job_id)
    reasons = _count_by(dataset, "rejects", "reason", context.job_id)
    return JobReport(
        job_id=context.job_id,
        source=context.spec.id,
        dataset=dataset.url,
        version=dataset.version(),
        repeated=True,
        files=len(listing.items),
        ignored=dict(listing.ignored),
        items=sum(kept.values()) + sum(reasons.values()),
        kept=sum(kept.values()),
        rejected=sum(reasons.values()),
        reasons=reasons,
        modalities=kept,
        units=num_units,
    )


def _count_by(dataset: Dataset, name: str, column: str, job: str) -> dict[str, int]:
    sql = f"SELECT {column}, count(*) FROM {name} WHERE job_id = ? GROUP BY 1 ORDER BY 1"  # noqa: S608 - our own names
    names, counts = dataset.query(sql, params=[job]).columns
    return dict(zip(names.to_pylist(), counts.to_pylist(), strict=True))
