"""An ingest job: list → place in series → map → resolve → promote → commit.

The job's id is a hash of source, listing, settings and the dataset's encoding policy, so the same job on the same raw
data is recognised and does nothing twice. Its state is what lies in `staging/<job>/`: finished units are found by
listing. What the dataset's readers see changes once, by the commit. A kill at any moment leaves the dataset as it
was, and the same command goes on from there.

Counts: every listed raw file is one *item* where nothing could be read from it, and otherwise as many items as it
gave images, plus one where reading broke off before its end. Then items = kept + rejected, always.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from threading import Thread
from typing import Any

import pyarrow as pa

from ingest.duplicates.near import resolve_near, resolve_overlap
from ingest.engines.base import Engine, Supervision, Task, TaskEvent
from ingest.engines.local import LocalEngine
from ingest.job.commit import index_rows, kept_prints, reject_rows
from ingest.job.concede import concede_duplicates
from ingest.job.identity import PIPELINE_VERSION, digest_of, job_id
from ingest.job.list import Listing, cut_units, list_raw
from ingest.job.map import map_unit
from ingest.job.place import place_series
from ingest.job.promote import Pack, Promoted, move_pack, plan_packs, sweep, write_pack
from ingest.job.report import JobReport, Progress, Watcher, committed_report, report_of
from ingest.job.resolve import resolve_exact
from ingest.job.target import open_target
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.raw.items import RawRoot
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from ingest.staging.context import MapContext, UnitReport
from ingest.staging.folder import unit_name
from ingest.staging.resolution import Resolution
from ingest.staging.unit import Unit
from shards.dataset.dataset import Dataset
from shards.errors import ConfigError, SourceError
from shards.schema import fingerprint_schema, index_schema, rejects_schema
from shards.store import Store

__all__ = ["JobReport", "Progress", "Share", "Watcher", "run_job"]


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
    encoding: Mapping[str, Any] | None = None,
    keep_pipeline: bool = False,
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
        encoding: Keys of the encoding policy that the dataset gets, or has (`ingest.picture.encoding.Encoding`).
        keep_pipeline: Go on in a dataset whose samples an earlier version of the pipeline made.
        progress: Told several times a second how far the job is.

    Raises:
        SourceError: The raw URL holds nothing that the source's layout asks for.
        ConfigError: The source needs a secret and there is none, or the dataset has another encoding policy or was
            made by another version of the pipeline.
        EngineError: A unit failed each time it was tried.
        StoreError: The storage failed.
    """
    started = time.monotonic()
    job = _Job(
        spec,
        raw_url,
        dataset_url,
        settings or IngestSettings(),
        progress=progress or _ignore,
        listed=listed,
        encoding=encoding,
    )
    job.list()
    if job.dataset.has_job(job.job_id):
        job.tidy()
        return job.committed_report()
    note = job.target.require_current(keep_pipeline=keep_pipeline)
    job.dataset = job.target.made()
    runner = engine or LocalEngine(workers, Supervision.of(job.settings.limits))
    try:
        job.place(runner, share)
        units, resumed = job.map(runner, share)
        if units is None:
            seconds = time.monotonic() - started
            return replace(job.committed_report(), repeated=False, pending=True, seconds=seconds)
        resolution, packs, promoted = job.settle(runner, units)
    finally:
        if isinstance(runner, LocalEngine):
            runner.close()  # nobody idles while the job commits
    report = replace(job.report(units, resolution, packs), notes=(note,) if note else ())
    version = job.commit(units, resolution, packs, promoted, report)
    lost = job.tidy() if version != resolution.version + 1 else job.sweep()
    if lost:
        report, version = job.committed_report(), job.dataset.version()
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
        encoding: Mapping[str, Any] | None,
    ) -> None:
        self.spec = spec
        self.raw_url = raw_url
        self.settings = settings
        self._tell = progress
        self._listed = listed
        self._check = Pseudonyms(spec, settings).key_check
        self._root = RawRoot(raw_url)
        self.target = open_target(dataset_url, encoding)
        self.dataset, self.encoding = self.target.dataset, self.target.encoding
        self.store: Store = self.dataset.store

    def list(self) -> None:
        """List the raw data; fixes the job's id."""
        self._tell(Progress(stage="list"))
        self.listing: Listing = list_raw(self._root, self.spec, self.settings)
        if not self.listing.items:
            wanted = self.spec.layout.wanted
            raise SourceError(
                f"{self.raw_url} holds none of {wanted}", hint=f"`biovfm sources show {self.spec.id}` shows the layout"
            )
        wanted_digest = digest_of(self._listed)
        self.job_id = job_id(self.spec, self.settings, self.listing.digest + wanted_digest, self.encoding, self._check)
        self.units: list[Unit] = cut_units(self.listing.items, self.settings)
        self.context = MapContext(
            spec=self.spec,
            settings=self.settings,
            encoding=self.encoding,
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
        Thread(target=import_module, args=("shards.dataset.query",)).start()  # settling needs it, and it is large
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
        self.target.check(Dataset.open(self.dataset.url))
        staged = (self.store, self.context.staging)

        def rows() -> pa.RecordBatchReader:
            return pa.RecordBatchReader.from_batches(index_schema(), index_rows(*staged, packs, promoted, units))

        def rejects() -> pa.RecordBatchReader:
            return pa.RecordBatchReader.from_batches(rejects_schema(), reject_rows(*staged, units, resolution))

        def prints() -> pa.RecordBatchReader:
            return pa.RecordBatchReader.from_batches(fingerprint_schema(), kept_prints(*staged, units, resolution))

        return self.dataset.commit(
            job_id=self.job_id,
            rows=rows,
            rejects=rejects,
            fingerprints=prints,
            summary={
                "source": report.source,
                "listed": report.items,
                "kept": report.kept,
                "rejected": report.rejected,
                "files": report.files,
                "pipeline_version": PIPELINE_VERSION,
            },
        )

    def tidy(self) -> int:
        """Give up what an earlier commit holds too, then sweep.

        Returns:
            Rows given up.
        """
        swept = next(iter(self.store.list(f"{self.context.staging}/")), None) is None
        lost = 0 if swept else concede_duplicates(self.dataset, self.job_id)
        self.sweep()  # a kill in the middle of it leaves empty folders
        return lost

    def sweep(self) -> int:
        """Remove the staging folder."""
        sweep(self.dataset, self.context.staging)
        return 0

    def report(self, units: Sequence[UnitReport], resolution: Resolution, packs: Sequence[Pack]) -> JobReport:
        """The counts of a run that is about to commit."""
        report = report_of(self.context, self.listing, units, resolution, packs)
        return replace(report, volumes=self.volumes)

    def committed_report(self) -> JobReport:
        """The counts of a job that is committed already, read from the tables."""
        return committed_report(self.dataset, self.context, self.listing, len(self.units))
