"""What a job tells: how far it is while it runs, and what it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import pyarrow as pa

from ingest.columns.bringing import Brought
from ingest.job.known import Attempts
from ingest.job.list import Listing
from ingest.job.table_match import TableMatch
from ingest.source.spec import SourceSpec
from ingest.staging.report import UnitReport
from ingest.staging.resolution import Resolution
from shards.dataset.dataset import Dataset

Stage = Literal["list", "series", "map", "resolve", "promote", "commit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSums:
    """Counts of units that were mapped.

    Attributes:
        files: Raw files, those that could not be read included.
        kept: Images staged.
        rejected: Images and files rejected.
        images: Images met.
    """

    files: int = 0
    kept: int = 0
    rejected: int = 0
    images: int = 0

    @classmethod
    def of(cls, units: Collection[UnitReport]) -> Self:
        """The sums over some units."""
        return cls(
            files=sum(unit.files + unit.pending for unit in units),
            kept=sum(unit.kept for unit in units),
            rejected=sum(sum(unit.rejected.values()) for unit in units),
            images=sum(unit.items for unit in units),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is; where tasks share it, how far this task's share is.

    Attributes:
        stage: What is being done.
        done: Raw files read (`map`) or shards made (`promote`), by earlier attempts too.
        total: All of them; 0 while unknown.
        kept: Images staged so far.
        rejected: Images and files rejected so far.
        images: Images met so far, those of files that are still being read included.
        earlier: What of these counts earlier attempts did (`map`).
    """

    stage: Stage
    done: int = 0
    total: int = 0
    kept: int = 0
    rejected: int = 0
    images: int = 0
    earlier: UnitSums = UnitSums()


Watcher = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """What a job did, over all its attempts.

    Two equations hold: `files` = `known` + `read` + all of `ignored` + `pending`, and `items` = `kept` + `rejected`.

    Attributes:
        job_id: The job.
        source: Source id.
        dataset: The dataset's URL.
        version: Index version after the job.
        repeated: The job was committed before; nothing was done now (the counts are of that time).
        unfinished: Other tasks that share the job have units left; nothing is committed yet.
        files: Raw files listed, members of archives one by one.
        known: Raw files that an earlier job of the source has read by the same rules; they are not read again.
        read: Raw files read, or found to be broken.
        ignored: Files that are not asked for, by kind.
        pending: Raw files that could not be read now; the same command tries them again.
        changed: Raw files among those read that an earlier job has read in another state.
        vanished: Raw files that an earlier job has read and that are not there any more; their samples stay.
        pruned: Vanished raw files whose samples the job dropped.
        revived: Kept images that were rejected as duplicates before, whose original went.
        removed: Samples that left the dataset: those of changed files that came out otherwise, and of pruned ones.
        items: What came of the files that were read: images, and files (or the rest of one) that are broken.
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
        matches: What of each of the source's tables is about its files.
        columns: What came beside the index, by table.
        notes: Sentences that the user should read.
        seconds: Wall time.
    """

    job_id: str
    source: str
    dataset: str
    version: int
    repeated: bool = False
    unfinished: bool = False
    files: int = 0
    known: int = 0
    read: int = 0
    ignored: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    changed: int = 0
    vanished: int = 0
    pruned: int = 0
    revived: int = 0
    removed: int = 0
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
    matches: tuple[TableMatch, ...] = ()
    columns: tuple[Brought, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether nothing of the raw data is in the dataset: nothing was kept, and nothing was there before."""
        there = self.kept or self.known or {"duplicate", "near_duplicate"} & self.reasons.keys()
        return not (there or self.unfinished)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**told, **{name: [asdict(one) for one in told[name]] for name in ("matches", "columns")}}


def settled_counts(units: Sequence[UnitReport], resolution: Resolution) -> tuple[int, dict[str, int]]:
    """Images kept, and rejects by reason, of units whose duplicates are resolved."""
    reasons: Counter[str] = Counter()
    kept = 0
    for unit in units:
        reasons.update(unit.rejected)
        reasons.update(reason for reason, _ in resolution.rejected(unit.index).values())
        kept += unit.kept - len(resolution.dropped(unit.index))
    return kept, dict(sorted(reasons.items()))


def count_by(dataset: Dataset, name: str, column: str, jobs: Sequence[str]) -> dict[str, int]:
    """Rows of a table that some jobs wrote, by the values of a column."""
    names, counts = dataset.query(
        f"SELECT {column}, count(*) FROM {name} WHERE job_id IN (SELECT job_id FROM wanted) "  # noqa: S608 - our own names
        "GROUP BY 1 ORDER BY 1",
        wanted=pa.table({"job_id": pa.array(jobs, pa.string())}),
    ).columns
    return dict(zip(names.to_pylist(), counts.to_pylist(), strict=True))


def report_of(
    dataset: Dataset, spec: SourceSpec, attempts: Attempts, listing: Listing, *, known: int = 0, pending: int = 0
) -> JobReport:
    """The counts of all committed attempts, read from the tables.

    Args:
        dataset: The dataset.
        spec: The source.
        attempts: The attempts.
        listing: The raw files.
        known: Known files where nothing is committed yet.
        pending: Pending files of an attempt that read nothing and was not committed.
    """
    kept = count_by(dataset, "samples", "modality", attempts.ids)
    reasons = count_by(dataset, "rejects", "reason", attempts.ids)
    if attempts.jobs:
        known = int(attempts.jobs[0].get("known", 0))
        pending = pending or int(attempts.jobs[-1].get("pending", 0))
    return JobReport(
        job_id=attempts.base,
        source=spec.id,
        dataset=dataset.url,
        version=dataset.version(),
        files=len(listing.items) + listing.ignored.total(),
        known=known,
        read=len(listing.items) - known - pending,
        ignored=dict(listing.ignored),
        pending=pending,
        items=sum(kept.values()) + sum(reasons.values()),
        kept=sum(kept.values()),
        rejected=sum(reasons.values()),
        reasons=reasons,
        modalities=kept,
        vanished=int(attempts.jobs[-1].get("vanished", 0)) if attempts.jobs else 0,
        changed=attempts.total("changed"),
        pruned=attempts.total("pruned"),
        revived=attempts.total("revived"),
        removed=attempts.total("removed"),
    )
