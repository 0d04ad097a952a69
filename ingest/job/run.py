"""An ingest job: list → place in series → map → settle (check, resolve, promote) → commit.

The job's id is a hash of source, listing, settings and the dataset's encoding policy, so the same job on the same raw
data is recognised and does nothing twice. Its state is what lies in its staging folder (`ingest.staging.folder`):
finished units are found by listing. What the dataset's readers see changes once, by the commit. A kill at any moment
leaves the dataset as it was, and the same command goes on from there.

Raw files that cannot be read now are pending: what was read is committed, and the same command tries the others again
in a further attempt (`ingest.job.known`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ingest.columns.bringing import Bringing, Brought, bring, prepare
from ingest.columns.own_rows import OwnRows
from ingest.engines.base import Engine, Supervision
from ingest.engines.local import LocalEngine
from ingest.job.commit import commit
from ingest.job.concede import concede_duplicates, concede_withdrawn
from ingest.job.identity import PIPELINE_VERSION, rules_of
from ingest.job.known import Attempts, attempts_at, attempts_for, attempts_of, drop_retried, rejects_to_retry
from ingest.job.list import LISTS, Listing, check_told, cut_units, list_raw
from ingest.job.map import map_units
from ingest.job.outgoing import Leaving, clear_after, num_revived
from ingest.job.place import forget_unread, place_series
from ingest.job.remap import carry_tombstones
from ingest.job.report import JobReport, Progress, Watcher, count_by, report_of, settled_counts
from ingest.job.secret_check import check_secret, pin_secret
from ingest.job.settle import TRIES, Settled, settle
from ingest.job.share import Share
from ingest.job.sift import PLAIN, Mode, Sifted, rejects_to_revive, sift
from ingest.job.target import Target, open_target, require_apart
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.raw.compact import Compact
from ingest.readers import reader_name
from ingest.readers.libraries import check_libraries, check_text_finder, missing_readers
from ingest.settings import IngestSettings
from ingest.source.data_list import check_matches
from ingest.source.spec import SourceSpec, catalogue_ids
from ingest.staging.context import MapContext, Retry
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from shards.dataset.dataset import Dataset
from shards.dataset.removal import Removal
from shards.errors import BiovfmError, ConfigError, SourceError, StoreError

__all__ = ["JobReport", "Progress", "Share", "Watcher", "run_job"]


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
    list_columns: OwnRows | None = None,
    encoding: Mapping[str, Any] | None = None,
    keep_pipeline: bool = False,
    retry_rejects: str | None = None,
    remapped: str | None = None,
    mode: Mode = PLAIN,
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
        list_columns: Columns of the data list to have beside the index (`ingest.columns.data_list.list_columns`).
        encoding: Keys of the encoding policy that the dataset gets, or has (`ingest.picture.encoding.Encoding`).
        keep_pipeline: Go on in a dataset whose samples an earlier version of the pipeline made.
        retry_rejects: Try the rejects of this reason again (empty: all of them), and nothing else.
        remapped: An older dataset that this one takes the place of: what was withdrawn from it stays out here too.
        mode: What to do with raw files that are known or vanished.
        progress: Told several times a second how far the job is.

    Raises:
        SourceError: The raw URL holds nothing that the source's layout asks for, a table that is to say what belongs
            together is about no file, or what vanished is to be pruned and a part of the raw data cannot be listed now.
        ConfigError: The source needs a secret and there is none, the dataset has another encoding policy or was made
            by another version of the pipeline, or a column beside the index, or what is stored of tables, may name a
            person or does not fit; or the dataset is to be the folder of the raw data itself.
        EngineError: A unit failed each time it was tried.
        StoreError: The storage failed.
    """
    started = time.monotonic()
    settings, tell = settings or IngestSettings(), progress or _ignore
    require_apart(raw_url, dataset_url)
    target = open_target(dataset_url, encoding)
    check_secret(target.dataset, spec, settings)
    names = Pseudonyms(spec, settings)
    tell(Progress(stage="list"))
    listing = _listing(spec, raw_url, settings)
    if listed is not None:
        check_matches(listed, (names.raw_path(item) for item in listing.items), source=spec.id)
    columns = prepare(target.dataset, [*listing.own, *([] if list_columns is None else [list_columns])])
    asked = _Asked(
        raw_url=raw_url,
        listed=listed,
        keep_pipeline=keep_pipeline,
        retry_rejects=retry_rejects,
        remapped=remapped,
        mode=mode,
        started=started,
    )
    engine = engine or LocalEngine(workers, Supervision.of(settings.limits))
    report = _ingest(
        spec,
        settings,
        names=names,
        target=target,
        listing=listing,
        asked=asked,
        engine=engine,
        share=share,
        tell=tell,
    )
    notes = (*report.notes, *(match.near_note for match in listing.matches if match.near))
    matches = tuple(listing.matches)
    return replace(report, columns=_brought(report, columns, listing, names), matches=matches, notes=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What `run_job` was asked for; see its arguments."""

    raw_url: str
    listed: Mapping[str, frozenset[str]] | None
    keep_pipeline: bool
    retry_rejects: str | None
    remapped: str | None
    mode: Mode
    started: float


def _brought(
    report: JobReport, columns: Sequence[Bringing], listing: Listing, names: Pseudonyms
) -> tuple[Brought, ...]:
    """Write the columns that come beside the index, where the job's samples are committed.

    It runs after every run of a job, also of one that was committed before: that one may have ended in between.
    """
    dataset = Dataset.find(report.dataset) if columns and not report.unfinished else None
    if dataset is None or dataset.is_empty():
        return ()
    return tuple(bring(dataset, columns, listing.items, names.raw_path, source=report.source))


def _ingest(
    spec: SourceSpec,
    settings: IngestSettings,
    *,
    names: Pseudonyms,
    target: Target,
    listing: Listing,
    asked: _Asked,
    engine: Engine,
    share: Share | None,
    tell: Watcher,
) -> JobReport:
    """Read what is new in the listing and commit it."""
    rules = rules_of(spec, settings, target.encoding, key_check=names.key_check, listed=asked.listed)
    attempts = attempts_at(target.dataset, spec.id, rules, listing)
    if asked.retry_rejects is None and attempts.is_complete:
        _tidy(target.dataset, attempts, listing, names, settings.secret)
        if attempts.covers(listing, asked.mode) and not rejects_to_revive(target.dataset, spec.id).wanted:
            return replace(report_of(target.dataset, spec, attempts, listing), repeated=True)
    note = target.require_current(keep_pipeline=asked.keep_pipeline)
    retry = None if asked.retry_rejects is None else _retry(target.dataset, attempts, asked.retry_rejects)
    if retry is None:
        by_name = bool(note) and not attempts.jobs
        work = sift(target.dataset, listing.items, names, source=spec.id, rules=rules, mode=asked.mode, by_name=by_name)
        if work.is_idle:
            return _idle(target.dataset, spec, attempts, listing, work)
        attempts = attempts_for(target.dataset, attempts, listing, source=spec.id, rules=rules, mode=asked.mode)
    else:
        work = Sifted(items=Compact(item for item in listing.items if names.raw_path(item) in retry.wanted))
    if asked.remapped is not None:
        carry_tombstones(Dataset.open(asked.remapped), target.made(), settings.secret)
    context = MapContext(
        spec=spec,
        settings=settings,
        encoding=target.encoding,
        raw_url=asked.raw_url if "://" in asked.raw_url else str(Path(asked.raw_url).absolute()),  # for any worker
        dataset_url=target.made().url,
        job_id=attempts.next_id(retry=retry is not None),
        rules=rules,
        listed=asked.listed,
        retry=work.revive if retry is None and work.revive.wanted else retry,
    )
    job = _Job(
        target=target,
        dataset=Dataset.open(context.dataset_url),
        context=context,
        staging=context.staging(),
        attempts=attempts,
        listing=listing,
        work=work,
        retried=asked.retry_rejects,
        tell=tell,
    )
    try:
        report = _run(job, engine, share)
    except (BiovfmError, OSError):
        if not job.dataset.has_job(context.job_id):
            raise
        # the same job, started a second time, has committed meanwhile and swept what both had staged
        job.staging.sweep(job.dataset)
        done = attempts_of(job.dataset, attempts.base)
        report = replace(report_of(job.dataset, spec, done, listing), repeated=True)
    notes = (*((note,) if note else ()), *_unused(listing), *report.notes)
    return replace(report, notes=notes, seconds=time.monotonic() - asked.started)


def _unused(listing: Listing) -> Iterator[str]:
    """A sentence per list of which some columns say nothing."""
    for name, columns in listing.unused.items():
        yield f"columns of {name} that are not used: {', '.join(columns)}"


def _ignore(_progress: Progress) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What the steps of one run need."""

    target: Target
    dataset: Dataset
    context: MapContext
    staging: Staging
    attempts: Attempts
    listing: Listing
    work: Sifted
    retried: str | None
    tell: Watcher


def _listing(spec: SourceSpec, raw_url: str, settings: IngestSettings) -> Listing:
    listing = list_raw(raw_url, spec, settings)
    if not listing.items:
        wanted = ", ".join(spec.layout.include) or f"the files that the {spec.layout.reader} reader takes"
        hint = f"`biovfm sources new {raw_url}` says what is there"
        if raw_url.lower().endswith(LISTS) and spec.layout.reader != "list":
            hint = "`--reader list` reads a table as a list of files"
        elif spec.id in catalogue_ids():
            hint = f"`biovfm sources check {spec.id} {raw_url}` says what is there and what is missing"
        raise SourceError(f"{raw_url} holds none of {wanted}", hint=hint)
    check_told(listing, spec)
    check_libraries(readers_of(spec, listing))
    check_text_finder(settings)
    return listing


def readers_of(spec: SourceSpec, listing: Listing) -> Iterator[str]:
    """The reader of each listed file."""
    if not missing_readers():
        return
    for item in listing.items:
        yield reader_name(spec.layout.rules[item.part].reader, item.name)


def _retry(dataset: Dataset, attempts: Attempts, reason: str) -> Retry:
    if not attempts.jobs:
        raise ConfigError(
            f"{dataset.url} holds no such job of this raw data, so it has no rejects to try again",
            hint="run the same command without --retry-rejects",
        )
    retry = rejects_to_retry(dataset, attempts, reason)
    if not retry.wanted:
        known = ", ".join(count_by(dataset, "rejects", "reason", attempts.ids)) or "none at all"
        raise ConfigError(f"the job has no rejects of reason {reason!r}", hint=f"its reasons: {known}")
    return retry


def _run(job: _Job, engine: Engine, share: Share | None) -> JobReport:
    """Map, settle and commit."""
    cut = cut_units(job.work.items, job.context.settings)
    try:
        job.tell(Progress(stage="series"))
        if share is None:
            forget_unread(job.dataset, job.context)
        first = share.task_index * len(cut) // share.num_tasks if share else 0
        units, volumes = place_series(engine, job.context, cut, first=first)
        reports, resumed = map_units(engine, job.dataset, job.context, job.staging, units, share=share, tell=job.tell)
        if reports is None:
            return replace(report_of(job.dataset, job.context.spec, job.attempts, job.listing), unfinished=True)
        leaving = Leaving(source=job.context.spec.id, again=job.work.again, gone=job.work.gone)
        settled = settle(engine, job.dataset, job.context, job.staging, units=reports, tell=job.tell, leaving=leaving)
    finally:
        engine.release()  # nobody idles while the job commits
    report = _commit(job, reports, settled)
    return replace(
        report,
        shards=len(settled.packs),
        units=len(units),
        resumed_units=resumed,
        skipped_buckets=settled.resolution.skipped_buckets,
        eval_overlap=settled.resolution.overlap,
        volumes=volumes,
    )


def _commit(job: _Job, units: Sequence[UnitReport], settled: Settled) -> JobReport:
    """Commit, where anything was read; then remove what is staged."""
    spec, dataset = job.context.spec, job.dataset
    pending = sum(unit.pending for unit in units)
    notes = _notes(settled, pending=pending, retried=job.retried is not None)
    if pending and not any(unit.files for unit in units):
        job.staging.sweep(dataset)
        report = report_of(dataset, spec, job.attempts, job.listing, known=job.work.known, pending=pending)
        return replace(report, notes=notes)
    job.tell(Progress(stage="commit"))
    if any(unit.pending and not job.staging.holds(unit) for unit in units):
        raise StoreError(
            "what is staged of the job's pending files is no longer what this run has read",
            hint="another run of the same command may be under way; run it again when that has ended",
        )
    job.target.check(Dataset.open(dataset.url))
    if not spec.deidentified:
        pin_secret(dataset, job.context.settings.secret)
    job_id, outgoing = job.context.job_id, settled.resolution.outgoing
    removal = Removal(dataset, lambda _: sorted(outgoing), transaction=job_id, note=job.staging.note)
    version = commit(
        dataset,
        job.staging,
        job_id,
        units=units,
        settled=settled,
        summary=_summary(job, units, settled),
        removal=removal if outgoing else None,
    )
    attempts = attempts_of(dataset, job.attempts.base)
    if version != settled.resolution.version + 1:
        concede_duplicates(dataset, job_id)
        concede_withdrawn(dataset, job_id, job.context.settings.secret, since=settled.resolution.version)
    if _has_replaced(attempts.jobs[-1]):
        clear_after(dataset, job_id, source=spec.id, gone=job.work.gone)
    job.staging.sweep(dataset)
    drop_retried(dataset, attempts)
    return replace(report_of(dataset, spec, attempts, job.listing), notes=notes)


def _summary(job: _Job, units: Sequence[UnitReport], settled: Settled) -> dict[str, Any]:
    """What the commit says of the attempt."""
    kept, reasons = settled_counts(units, settled.resolution)
    pending = sum(unit.pending for unit in units)
    earlier = job.attempts.jobs[-1].get("pending", 0) if job.attempts.jobs else 0
    summary = {
        "source": job.context.spec.id,
        "files": len(job.listing.items) + job.listing.ignored.total(),
        "known": job.work.known if job.retried is None else 0,
        "read": sum(unit.files for unit in units),
        "pending": pending if job.retried is None else earlier,
        "items": sum(unit.items for unit in units),
        "kept": kept,
        "rejected": sum(reasons.values()),
        "pipeline_version": PIPELINE_VERSION,
        "spec": job.context.spec.model_dump(mode="json", exclude_defaults=True),
        "settings": job.context.settings.model_dump(mode="json", exclude_defaults=True),
        "listing": job.listing.digest,
        "stamps": job.listing.stamps,
        "rules": job.context.rules,
    }
    return summary | (_of_grown(job, units, settled) if job.retried is None else {"retried": job.retried})


def _of_grown(job: _Job, units: Sequence[UnitReport], settled: Settled) -> dict[str, int]:
    """What a job did with files that were known: nothing of it is said where there was nothing."""
    work = job.work
    counts = {
        "changed": work.changed,
        "read_again": len(work.again),
        "pruned": len(work.gone),
        "revived": num_revived(job.staging, units, settled.resolution, work.revive),
        "tried_to_revive": len(work.revive.wanted),
    }
    return {"vanished": work.vanished - len(work.gone), **{name: count for name, count in counts.items() if count}}


def _has_replaced(summary: Mapping[str, Any]) -> bool:
    """Whether a job took the place of something, so that its commit is followed by others."""
    return any(summary.get(name) for name in ("removed", "read_again", "pruned", "tried_to_revive"))


def _notes(settled: Settled, *, pending: int, retried: bool) -> tuple[str, ...]:
    notes = []
    if settled.resolution.kept_neighbours:
        notes.append(
            f"{settled.resolution.kept_neighbours:,} near duplicates were kept: their files are numbered neighbours, "
            "or many files of their folder are alike, as slices or frames of one examination are. --group folder "
            "states that a folder belongs together; `dedup: {neighbours: drop}` in --settings drops them"
        )
    if settled.crowded:
        notes.append(
            f"other jobs committed during each of {TRIES} tries: near duplicates between this job and the last of them "
            "may have stayed; `biovfm dedup` finds them"
        )
    if pending and retried:
        files = "1 raw file" if pending == 1 else f"{pending:,} raw files"
        notes.append(f"{files} could not be read now; what was rejected of them stays rejected")
    return tuple(notes)


def _tidy(dataset: Dataset, attempts: Attempts, listing: Listing, names: Pseudonyms, secret: SecretStr) -> None:
    """Complete what a kill after the commit left undone."""
    last = attempts.jobs[-1]
    staging = Staging(dataset.store, attempts.ids[-1])
    if not staging.is_empty():
        concede_duplicates(dataset, attempts.ids[-1])
        concede_withdrawn(dataset, attempts.ids[-1], secret)
        if _has_replaced(last):
            source, rules = str(last["source"]), str(last["rules"])
            gone: Sequence[str] = ()
            if last.get("pruned"):
                gone = sift(dataset, listing.items, names, source=source, rules=rules, mode=Mode(prune=True)).gone
            clear_after(dataset, attempts.ids[-1], source=source, gone=gone)
    staging.sweep(dataset)  # a kill in the middle of it leaves empty folders
    drop_retried(dataset, attempts)


def _idle(dataset: Dataset, spec: SourceSpec, attempts: Attempts, listing: Listing, work: Sifted) -> JobReport:
    """The report where every file is known as it is."""
    if attempts.is_complete:
        return replace(report_of(dataset, spec, attempts, listing), repeated=True, vanished=work.vanished)
    found = report_of(dataset, spec, Attempts(base=attempts.base), listing, known=work.known)
    return replace(found, repeated=True, vanished=work.vanished)
