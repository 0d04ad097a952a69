"""An ingest job: list → place in series → map → resolve → promote → commit.

The job's id is a hash of source, listing, settings and the dataset's encoding policy, so the same job on the same raw
data is recognised and does nothing twice. Its state is what lies in `staging/<job>/`: finished units are found by
listing. What the dataset's readers see changes once, by the commit. A kill at any moment leaves the dataset as it
was, and the same command goes on from there.

Counts: every listed raw file is one *item* where nothing could be read from it, and otherwise as many items as it
gave images, plus one where reading broke off before its end. Then items = kept + rejected, always.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from ingest.concede import concede_duplicates
from ingest.engines.base import Engine, Supervision, Task, TaskEvent
from ingest.engines.local import LocalEngine
from ingest.listing import Listing, Unit, cut_units, list_raw
from ingest.mapping import MapContext, UnitReport, map_unit, unit_name
from ingest.near import resolve_near, resolve_overlap
from ingest.normalise import Encoding
from ingest.privacy import Pseudonyms
from ingest.promote import Pack, Promoted, index_rows, move_pack, plan_packs, sweep, write_pack
from ingest.raw import RawRoot
from ingest.resolve import Resolution, read_staged, resolve_exact
from ingest.series import place_series
from ingest.settings import IngestSettings
from ingest.spec import SourceSpec
from ingest.tables import fingerprint_schema
from shards.dataset import Dataset
from shards.errors import ConfigError, SourceError
from shards.schema import index_schema, rejects_schema
from shards.store import Store

PIPELINE_VERSION = 2
"""Raised when the same raw data would give other bytes."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of a job one of several processes does (a SLURM array, a Kubernetes indexed job).

    Every process maps each `num_tasks`-th unit. The one that finds all units finished settles and commits; if several
    do, the commit still happens once.

    Attributes:
        num_tasks: Processes that share the job.
        task_index: Which of them this is, from 0.
    """

    num_tasks: int
    task_index: int

    def __post_init__(self) -> None:
        if not 0 <= self.task_index < self.num_tasks:
            raise ConfigError(
                f"task index {self.task_index} is not in 0 … {self.num_tasks - 1}", hint="indices count from 0"
            )


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
        volumes: What was made of DICOM series (`ingest.series`); empty where there are none.
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
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


Watcher = Callable[[Progress], None]


def run_job(
    spec: SourceSpec,
    raw_url: str,
    dataset_url: str,
    *,
    workers: int = 1,
    settings: IngestSettings | None = None,
    engine: Engine | None = None,
    share: Share | None = None,
    listed: Mapping[str, frozenset[str]] | None = None,
    progress: Watcher | None = None,
) -> JobReport:
    """Ingest one source into a dataset; the dataset is made where there is none.

    Args:
        spec: The source.
        raw_url: Folder, file or fsspec URL of the raw data.
        dataset_url: The dataset.
        workers: Local processes; 0 works in this process, without supervision.
        settings: Settings; part of the job's id.
        engine: Where to run instead of local processes.
        share: Which part of the units this process maps, where several share a job; without it, all.
        listed: Take only these frames of these raw paths (`raw path → frames`), as a data list names them.
        progress: Told several times a second how far the job is.

    Raises:
        SourceError: The raw URL holds nothing that the source's layout asks for.
        ConfigError: The source needs a secret and there is none.
        EngineError: A unit failed each time it was tried.
        StoreError: The storage failed.
    """
    started = time.monotonic()
    job = _Job(spec, raw_url, dataset_url, settings or IngestSettings(), progress=progress or _ignore, listed=listed)
    job.list()
    if job.dataset.has_job(job.job_id):
        job.tidy()
        return job.repeated_report()
    rules = Supervision(
        step_timeout_seconds=job.settings.limits.item_timeout_seconds, step_attempts=job.settings.limits.item_attempts
    )
    runner = engine or LocalEngine(workers, rules)
    job.place(runner, share)
    units, resumed = job.map(runner, share)
    if units is None:
        return replace(job.repeated_report(), repeated=False, pending=True, seconds=time.monotonic() - started)
    resolution, packs, promoted = job.settle(runner, units)
    report = job.report(units, resolution, packs)
    version = job.commit(units, resolution, packs, promoted, report)
    lost = job.tidy() if version != resolution.version + 1 else job.sweep()
    if lost:
        report, version = job.repeated_report(), job.dataset.version()
    return replace(report, repeated=False, version=version, resumed_units=resumed, seconds=time.monotonic() - started)


def _ignore(_progress: Progress) -> None:
    pass


class _Job:
    """The steps of one run."""

    def __init__(
        self,
        spec: SourceSpec,
        raw_url: str,
        dataset_url: str,
        settings: IngestSettings,
        *,
        progress: Watcher,
        listed: Mapping[str, frozenset[str]] | None,
    ) -> None:
        self.spec = spec
        self.raw_url = raw_url
        self.settings = settings
        self._tell = progress
        self._listed = listed
        self._check = Pseudonyms(spec, settings).key_check
        self._root = RawRoot(raw_url)
        self.dataset = Dataset.create(dataset_url)
        self.store: Store = self.dataset.store

    def list(self) -> None:
        """List the raw data; fixes the job's id."""
        self._tell(Progress(stage="list"))
        self.listing: Listing = list_raw(self._root, self.spec, self.settings)
        if not self.listing.items:
            wanted = ", ".join(self.spec.layout.include) or f"files of the {self.spec.layout.reader} reader"
            raise SourceError(
                f"{self.raw_url} holds none of {wanted}", hint=f"`biovfm sources show {self.spec.id}` shows the layout"
            )
        encoding = Encoding.of_dataset(self.dataset.settings)
        wanted_digest = _digest_of(self._listed)
        self.job_id = job_id(self.spec, self.settings, self.listing.digest + wanted_digest, encoding, self._check)
        self.units: list[Unit] = cut_units(self.listing.items, self.settings)
        self.context = MapContext(
            spec=self.spec,
            settings=self.settings,
            encoding=encoding,
            raw_url=self.raw_url,
            dataset_url=self.dataset.url,
            job_id=self.job_id,
            listed=self._listed,
        )

    def place(self, engine: Engine, share: Share | None) -> None:
        """Tell the files of DICOM series their places."""
        self._tell(Progress(stage="series"))
        first = share.task_index * len(self.units) // share.num_tasks if share else 0
        self.units, self.volumes = place_series(engine, self.context, self.units, first=first)

    def map(self, engine: Engine, share: Share | None) -> tuple[Sequence[UnitReport] | None, int]:
        """Map the units that no earlier run has finished.

        Returns:
            All reports in the order of units (None while other tasks have some left), and how many were there
            already.
        """
        reports = {report.index: report for report in self._finished_units()}
        resumed = len(reports)
        left = [unit for unit in self.units if unit.index not in reports]
        if share is not None:
            left = [unit for unit in left if unit.index % share.num_tasks == share.task_index]
        todo = [Task(index=unit.index, payload=unit) for unit in left]
        steps: dict[int, int] = {}
        total = len(self.listing.items)
        for event in self._map_events(engine, todo):
            if event.done:
                reports[event.index] = event.result
                steps.pop(event.index, None)
            else:
                steps[event.index] = event.step
            self._tell(
                Progress(
                    stage="map",
                    done=sum(report.files for report in reports.values()) + sum(steps.values()),
                    total=total,
                    kept=sum(report.kept for report in reports.values()),
                    rejected=sum(sum(report.rejected.values()) for report in reports.values()),
                )
            )
        if share is not None:
            reports |= {report.index: report for report in self._finished_units()}
        if len(reports) < len(self.units):
            return None, resumed
        return [reports[unit.index] for unit in self.units], resumed

    def _map_events(self, engine: Engine, todo: Sequence[Task]) -> Iterator[TaskEvent]:
        return engine.run(map_unit, self.context, todo) if todo else iter(())

    def _finished_units(self) -> Iterator[UnitReport]:
        names = {f"{self.context.staging}/{unit_name(unit.index)}" for unit in self.units}
        for info in self.store.list(f"{self.context.staging}/u"):
            if info.path in names:
                yield UnitReport.from_json(self.store.read(info.path))

    def settle(
        self, engine: Engine, units: Sequence[UnitReport]
    ) -> tuple[Resolution, Sequence[Pack], Mapping[int, Promoted]]:
        """Resolve and promote, again where another job has committed meanwhile."""
        while True:
            self._tell(Progress(stage="resolve"))
            exact = resolve_exact(self.dataset, self.context.staging, units)
            near = resolve_near(self.dataset, self.context.staging, units, exact, self.settings.dedup)
            resolution = resolve_overlap(self.dataset, self.context.staging, units, near, self.settings.dedup)
            packs = plan_packs(self.store, self.context, units, resolution)
            promoted = self._promote(engine, units, packs)
            if self.dataset.version() == resolution.version:
                return resolution, packs, promoted

    def _promote(self, engine: Engine, units: Sequence[UnitReport], packs: Sequence[Pack]) -> Mapping[int, Promoted]:
        promoted: dict[int, Promoted] = {}
        digests = {tar: sha256 for unit in units for tar, (_, sha256) in unit.shards.items()}
        mixed = [Task(index=pack.index, payload=pack) for pack in packs if not pack.whole]
        if len(mixed) <= 1:  # written sooner than a process starts
            engine = LocalEngine(0)
        for event in engine.run(write_pack, self.context, mixed):
            if event.done:
                promoted[event.index] = event.result
                self._tell(Progress(stage="promote", done=len(promoted), total=len(packs)))
        for pack in packs:
            if pack.whole:
                promoted[pack.index] = move_pack(self.store, self.context, pack, digests[pack.pieces[0].tar])
                self._tell(Progress(stage="promote", done=len(promoted), total=len(packs)))
        return promoted

    def commit(
        self,
        units: Sequence[UnitReport],
        resolution: Resolution,
        packs: Sequence[Pack],
        promoted: Mapping[int, Promoted],
        report: JobReport,
    ) -> int:
        """Add the rows to the tables in one step, then remove the staging folder."""
        self._tell(Progress(stage="commit"))
        rows = index_rows(self.store, self.context.staging, packs, promoted, units)

        def prints() -> pa.RecordBatchReader:
            return pa.RecordBatchReader.from_batches(fingerprint_schema(), self._kept_prints(units, resolution))

        return self.dataset.commit(
            job_id=self.job_id,
            rows=index_schema().empty_table() if rows is None else rows,
            rejects=self._rejects(units, resolution),
            fingerprints=prints,
            summary={
                "source": report.source,
                "listed": report.items,
                "kept": report.kept,
                "rejected": report.rejected,
                "files": report.files,
            },
        )

    def tidy(self) -> int:
        """Give up what an earlier commit holds too, then sweep; does nothing where the job was swept before.

        Returns:
            Rows given up.
        """
        if next(iter(self.store.list(f"{self.context.staging}/")), None) is None:
            return 0
        lost = concede_duplicates(self.dataset, self.job_id)
        self.sweep()
        return lost

    def sweep(self) -> int:
        """Remove the staging folder."""
        sweep(self.dataset, self.context.staging)
        return 0

    def _kept_prints(self, units: Sequence[UnitReport], resolution: Resolution) -> Iterator[pa.RecordBatch]:
        for unit in units:
            if unit.kept:
                table = read_staged(self.store, self.context.staging, unit.index, "prints")
                yield from _without(table, resolution.dropped(unit.index)).to_batches()

    def _rejects(self, units: Sequence[UnitReport], resolution: Resolution) -> pa.Table:
        tables = [read_staged(self.store, self.context.staging, unit.index, "rejects") for unit in units]
        for unit in units:
            drops = resolution.dropped(unit.index)
            if drops:
                columns = ("source", "modality", "raw_path", "raw_frame", "job_id")
                rows = sorted(drops)
                table = read_staged(self.store, self.context.staging, unit.index, "samples", columns).take(rows)
                table = table.append_column("reason", pa.array([drops[row][0] for row in rows]))
                table = table.append_column("detail", pa.array([drops[row][1] for row in rows]))
                tables.append(table.select(rejects_schema().names).cast(rejects_schema()))
        return pa.concat_tables(tables)

    def report(self, units: Sequence[UnitReport], resolution: Resolution, packs: Sequence[Pack]) -> JobReport:
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
            job_id=self.job_id,
            source=self.spec.id,
            dataset=self.dataset.url,
            version=-1,
            files=len(self.listing.items),
            ignored=dict(self.listing.ignored),
            items=sum(unit.items for unit in units),
            kept=kept,
            rejected=rejected,
            reasons=dict(sorted(reasons.items())),
            modalities=dict(sorted(modalities.items())),
            shards=len(packs),
            units=len(self.units),
            skipped_buckets=resolution.skipped_buckets,
            eval_overlap=resolution.overlap,
            volumes=self.volumes,
        )

    def repeated_report(self) -> JobReport:
        """The counts of a job that is committed already, read from the tables."""
        kept = _count_by(self.dataset, "index", "modality", self.job_id)
        reasons = _count_by(self.dataset, "rejects", "reason", self.job_id)
        return JobReport(
            job_id=self.job_id,
            source=self.spec.id,
            dataset=self.dataset.url,
            version=self.dataset.version(),
            repeated=True,
            files=len(self.listing.items),
            ignored=dict(self.listing.ignored),
            items=sum(kept.values()) + sum(reasons.values()),
            kept=sum(kept.values()),
            rejected=sum(reasons.values()),
            reasons=reasons,
            modalities=kept,
            units=len(self.units),
        )


def job_id(spec: SourceSpec, settings: IngestSettings, listing: str, encoding: Encoding, key_check: str) -> str:
    """The id of a job: the source and 16 hex digits of a hash of all that decides its bytes."""
    parts = {
        "pipeline": PIPELINE_VERSION,
        "spec": spec.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "listing": listing,
        "encoding": {name: getattr(encoding, name) for name in encoding.__dataclass_fields__},
        "key": key_check,
    }
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{spec.id}-{digest[:16]}"


def _digest_of(listed: Mapping[str, frozenset[str]] | None) -> str:
    if listed is None:
        return ""
    rows = sorted((path, *sorted(frames)) for path, frames in listed.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _without(table: pa.Table, drops: Mapping[int, Any]) -> pa.Table:
    if not drops:
        return table
    return table.filter(pa.array([row not in drops for row in range(len(table))]))


def _count_by(dataset: Dataset, name: str, column: str, job: str) -> dict[str, int]:
    from shards.index import connect, scan

    table = dataset.table(name)
    if table is None:
        return {}
    with connect() as database:
        database.register("rows_", scan(table))
        found = database.execute(
            f"SELECT {column}, count(*) FROM rows_ WHERE job_id = ? GROUP BY 1 ORDER BY 1",  # noqa: S608  # our own name
            [job],
        ).fetchall()
    return dict(found)
