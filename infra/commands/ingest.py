"""`biovfm ingest`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from infra.commands._assignments import read_assignments
from infra.commands._operating import DEFAULTS, Operating, Pulse, operated
from infra.commands._own_columns import column_lines, own_columns, with_columns
from infra.commands._sharing import share_of
from infra.commands._tables import match_lines
from infra.console import emit, log_as, log_event, log_step, number, progress, stderr
from infra.stages import StageClock
from ingest.engines.lean import one_blas_thread
from ingest.engines.memory import arrow_from_c
from shards.stream.cores import usable_cores

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from infra.metrics.ingesting import IngestFigures
    from ingest.engines import Engine
    from ingest.job.run import JobReport, Progress
    from ingest.settings import IngestSettings
    from ingest.source.spec import SourceSpec


def ingest(
    source: str,
    raw: str,
    dataset: str,
    /,
    *,
    modality: tuple[str, ...] = (),
    reader: str = "auto",
    licence: str = "unknown",
    anatomy: tuple[str, ...] = (),
    group: Literal["file", "folder", "dicom", "none"] | None = None,
    deidentified: bool = False,
    encoding: tuple[str, ...] = (),
    keep_pipeline: bool = False,
    remap: str | None = None,
    retry_rejects: str | None = None,
    allow_incomplete: bool = False,
    prune: bool = False,
    rehash: bool = False,
    settings: Path | None = None,
    only_listed: Path | None = None,
    column: tuple[str, ...] = (),
    allow: tuple[str, ...] = (),
    type_: Annotated[tuple[str, ...], Parameter(name="--type")] = (),
    workers: int | None = None,
    num_tasks: int | None = None,
    task_index: int | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    report: Path | None = None,
    operating: Operating = DEFAULTS,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Ingest one source of raw images into a dataset; the dataset is made where there is none.

    The same command again goes on where an interrupted one stopped; of a finished one it changes nothing.

    Example: `biovfm ingest kvasir-capsule /raw/kvasir-capsule ./data --workers 8`

    Example: `biovfm ingest our-ct /raw/ct.zip ./data --modality CT --encoding short_side_px=256`

    Parameters
    ----------
    source
        Id of a catalogue source (`biovfm sources`), a YAML file, or, with --modality, a name for your own source.
    raw
        Folder, archive or fsspec URL of the raw data.
    dataset
        Folder or URL of the dataset.
    modality
        Modality tag of your own source; `dicom`, or several tags, go by the DICOM tag of each file.
    reader
        Reader of your own source; `auto` goes by file name.
    licence
        Licence of your own source.
    anatomy
        Body parts of your own source.
    group
        What belongs together in your own source: equal groups are never near duplicates of each other.
    deidentified
        Nothing in the paths, tags or lists of your own source identifies a person: keep raw paths readable.
    encoding
        A key of the encoding policy that the dataset is made with, such as short_side_px=256, jpeg_quality=90,
        format=png or resampler=native; may be repeated. A dataset that exists keeps its own.
    keep_pipeline
        Add to a dataset whose samples an earlier version of the pipeline made: the new samples follow the rules of
        this release, the old ones stay as they are.
    remap
        Folder or URL of a new dataset, with the encoding of DATASET, into which the raw data are ingested by the rules
        of this release. DATASET stays as it is; the locks of it in this folder and beside it are reported.
    retry_rejects
        Try those raw files and frames of the job again that were rejected for this reason (`all`: for any), and only
        those.
    allow_incomplete
        End with exit code 0 although some raw files could not be read now. They stay pending: the same command tries
        them again.
    prune
        Drop the samples of raw files that an earlier job has read and that are not there any more. Locks of earlier
        versions keep them. A rejected duplicate whose kept copy goes this way is kept instead.
    rehash
        Read known raw files again, also where size and time of change are the same, and replace what comes out
        otherwise.
    settings
        YAML file with ingest settings.
    only_listed
        A data list (`biovfm subset export --format tsv`): take exactly the raw files and frames that it names.
    column
        A column of the list (--only-listed, or the list that RAW is) to have beside the index, HEADER or NEW=HEADER;
        repeat for several. Those of a source's own tables stand in its YAML under `columns`.
    allow
        A column to take although it looks like names, dates or identifiers: one of --column, or that of the licence,
        anatomy or label in a list that RAW is; repeat for several.
    type_
        NAME=TYPE where the values do not say it: bool, int, float, category, date or timestamp.
    workers
        Processes on this machine; by default one per core that this command may use. 0 works without any.
    num_tasks
        Processes that share the job, each started with the same command; read from SLURM_ARRAY_TASK_COUNT if not given.
        A Kubernetes indexed Job does not tell it: give its `completions`.
    task_index
        Which of them this is, from 0; read from SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX if not given.
    engine
        `local` processes, or the workers of a `ray` cluster (install the extra `ray`).
    address
        Address of the Ray cluster; without it, the one that the environment names.
    report
        Write a page about the job here, and its figures as JSON beside it: counts, times, pictures of what was kept
        and of what was rejected. A report of the same job that is there already stays.
    """
    log_as(operating.log_format, run=source)
    share = share_of(num_tasks, task_index)
    log_as(operating.log_format, rank=share.task_index if share else 0)
    arrow_from_c()
    with one_blas_thread():
        import_module("numpy")
    spec = _spec(
        source,
        modality,
        reader=reader,
        licence=licence,
        anatomy=anatomy,
        grouping=None if group is None else {"by": group},
        deidentified=deidentified,
    )
    log_as(operating.log_format, run=spec.id)
    with operated(operating, partial(_figures, source=spec.id)) as figures, figures or nullcontext():
        own = own_columns(column, allow=allow, types=type_, spec=spec, listed=only_listed is not None)
        spec = with_columns(spec, {} if only_listed else own, allow=allow)
        checked = _settings(settings, spec, dataset, *(() if remap is None else (remap,)))
        given = read_assignments("--encoding", encoding, example="short_side_px=256")
        if remap is not None:
            given = {**_policy_of(dataset), **given}
        num_workers = usable_cores() if workers is None else workers
        with _engine(engine, address, num_workers, checked) as runner, _watch() as watcher:
            from ingest.columns.data_list import list_columns
            from ingest.job.run import run_job
            from ingest.job.sift import Mode
            from ingest.source.data_list import load_list  # while the engine's processes import theirs

            clock = StageClock(_both(watcher, figures))
            done = run_job(
                spec,
                raw,
                dataset if remap is None else remap,
                settings=checked,
                engine=runner,
                share=share,
                listed=load_list(only_listed, spec.id) if only_listed else None,
                list_columns=list_columns(only_listed, spec.id, own) if only_listed and own else None,
                encoding=given,
                keep_pipeline=keep_pipeline,
                remapped=None if remap is None else dataset,
                retry_rejects="" if retry_rejects == "all" else retry_rejects,
                mode=Mode(prune=prune, rehash=rehash),
                progress=clock,
            )
            clock.stop()
        failed = bool(done.failed or (done.pending and not allow_incomplete))
        if figures is not None:
            figures.finish(done, failed=failed)
    if report is not None and not done.unfinished:
        _write_report(report, done, spec=spec, settings=checked, raw=raw, stages=clock.seconds)
    _warn_of_other_modalities(done, spec)
    _tell_count(done, source, spec, raw)
    if json_:
        emit(done.to_dict())
    else:
        sys.stdout.write("\n".join(report_lines(done)) + "\n")
    for line in [*_advice(done), *(_fates(dataset, done.dataset) if remap is not None else ())]:
        stderr().print(line, markup=False, soft_wrap=True)
    if failed:
        raise SystemExit(1)


def _policy_of(dataset: str) -> dict[str, Any]:
    """The encoding policy of a dataset."""
    from ingest.picture.encoding import Encoding
    from shards.dataset.dataset import Dataset

    return Encoding.of_dataset(Dataset.open(dataset).settings).model_dump()


def _fates(old_url: str, new_url: str) -> list[str]:
    """What becomes of the locks of a dataset that was ingested again."""
    from ingest.job.remap import fate_of, locks_of
    from shards.dataset.dataset import Dataset

    old, new = Dataset.open(old_url), Dataset.open(new_url)
    found = [str(fate_of(path, lock, old, new)) for path, lock in locks_of(old, (Path(), Path(old_url).parent))]
    return found or [f"no lock of {old.url} lies in this folder or beside it; those elsewhere stay valid for it alone"]


def _tell_count(done: JobReport, source: str, spec: SourceSpec, raw: str) -> None:
    """Say in one line how many of the source's images were met, and what was left out."""
    from infra.commands._survey import count_line

    line, far = count_line(spec, done.items)
    if not line or done.pending:
        return
    left = ", ".join(f"{kind} {count:,}" for kind, count in done.ignored.items() if kind in spec.layout.kinds)
    advice = f"; `biovfm sources check {source} {raw}` says what is there and what is missing" if far else ""
    stderr().print(f"{'warning: ' if far else ''}{spec.id}: {line}{f'; left out: {left}' if left else ''}{advice}")


def _warn_of_other_modalities(done: JobReport, spec: SourceSpec) -> None:
    """Say how many images were tagged by their files, because these contradict the source."""
    others = {tag: count for tag, count in done.modalities.items() if tag not in spec.modality}
    if others:
        counts = ", ".join(f"{count:,} {tag}" for tag, count in others.items())
        stderr().print(
            f"warning: {spec.id} is said to be {', '.join(spec.modality)}, but its files say: {counts}; these images "
            "are tagged as their files say (`--modality dicom` takes every tag from the files, `modality_rule: "
            "{by: path}` in a YAML takes none)"
        )


def _write_report(
    path: Path, done: JobReport, *, spec: SourceSpec, settings: IngestSettings, raw: str, stages: dict[str, float]
) -> None:
    """The page and, beside it, the JSON; those of the same job stay as they are."""
    from infra.reports.ingest_job import REJECTED_IMAGES, job_facts, job_page
    from infra.reports.rejected_pictures import look_at_rejects
    from ingest.job.list import list_raw
    from shards.dataset.dataset import Dataset
    from shards.files import write_text

    page, figures = path.with_suffix(".html"), path.with_suffix(".json")
    if done.repeated and page.exists() and f'"{done.job_id}"' in _text_of(figures):
        stderr().print(f"{page} tells of this job already")
        return
    listing = list_raw(raw, spec, settings)
    facts = job_facts(done, spec, settings, stages=stages, raw_bytes=sum(item.size for item in listing.items))
    dataset = Dataset.open(done.dataset)
    glimpses = look_at_rejects(
        dataset, done.job_id, spec=spec, listing=listing, raw_url=raw, settings=settings, num=REJECTED_IMAGES
    )
    write_text(figures, json.dumps(facts, indent=1, default=str) + "\n")
    write_text(page, job_page(dataset, facts, glimpses))
    stderr().print(f"wrote {page} and {figures}")


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _warn(line: str) -> None:
    stderr().print(f"warning: {line}", soft_wrap=True)


@contextmanager
def _engine(name: str, address: str | None, workers: int, settings: IngestSettings) -> Iterator[Engine]:
    """Where the job runs; local processes start at once."""
    from ingest.engines.base import Supervision
    from ingest.engines.lean import without_pandas
    from ingest.engines.local import LocalEngine

    rules = Supervision.of(settings.limits)
    if name == "ray":
        from ingest.engines.ray import RayEngine

        with redirect_stdout(sys.stderr):  # Ray prints there what becomes of its nodes
            yield RayEngine(address=address, rules=rules, tell=_warn)
        return
    with without_pandas(), LocalEngine(workers, rules) as engine:
        engine.start("ingest.job.map")
        yield engine


def _spec(source: str, modality: tuple[str, ...], **flags: Any) -> SourceSpec:
    from ingest.source.spec import from_flags, is_yaml, load_spec
    from shards.errors import ConfigError, SourceError

    given = {name: value for name, value in flags.items() if value not in (None, (), False, "auto", "unknown")}
    if modality:
        return from_flags(name=source, modality=modality, **given)
    if given:
        raise ConfigError(
            f"--{next(iter(given))} describes a source of your own", hint="add --modality, or put it into the YAML file"
        )
    try:
        return load_spec(source)
    except SourceError as error:
        if is_yaml(source):
            raise
        hint = f"{error.hint}; for a source of your own of this name, add --modality"
        raise SourceError(error.message, hint=hint) from None


def _settings(path: Path | None, spec: SourceSpec, *datasets: str) -> IngestSettings:
    """The job's settings with the secret; one is made on first use, unless a dataset was made with another."""
    from ingest.job.secret_check import needs_no_other
    from ingest.privacy.secret import load_secret
    from ingest.settings import IngestSettings
    from shards.settings import load_yaml, parse

    checked = parse(IngestSettings, load_yaml(path) if path else {}, where=str(path or "settings"))
    return checked.model_copy(
        update={"secret": load_secret(create=not spec.deidentified and all(map(needs_no_other, datasets)))}
    )


def _figures(registry: CollectorRegistry, file: Path | None, *, source: str) -> IngestFigures:
    from infra.metrics.ingesting import IngestFigures

    return IngestFigures(registry, source=source, file=file)


def _both(show: Callable[[Progress], None], figures: IngestFigures | None) -> Callable[[Progress], None]:
    """A watcher that shows progress, counts it and logs it."""
    pulse = Pulse()

    def watch(now: Progress) -> None:
        show(now)
        log_step(now.done)
        if figures is not None:
            figures(now)
        if pulse.is_due():
            log_event("progress", step=now.done, **asdict(now))

    return watch


@contextmanager
def _watch() -> Iterator[Callable[[Progress], None]]:
    with progress() as bars:
        bar = bars.add_task("list", total=None, note="")

        def show(now: Progress) -> None:
            note = f"{now.images:,} images, {now.kept:,} kept, {now.rejected:,} rejected" if now.stage == "map" else ""
            bars.update(bar, description=now.stage, completed=now.done, total=now.total or None, note=note)

        yield show


def _advice(report: JobReport) -> list[str]:
    """What the user should know or do beside the counts."""
    advice = [f"note: {note}" for note in report.notes]
    if report.pending:
        advice.append(
            f"{number(report.pending, 'raw file')} could not be read now; run the same command again when they can "
            "be, or end it with exit code 0 by --allow-incomplete"
        )
    if report.failed:
        advice.append("nothing was kept; --report FILE shows pictures of what was rejected")
    return advice


def report_lines(report: JobReport) -> Iterator[str]:
    """The counts of a job for people."""
    if report.unfinished:
        yield f"{report.source}: this task's units are done; others have some left, nothing is committed yet"
        return
    done = "was ingested before, nothing to do" if report.repeated else f"took {report.seconds:.1f} s"
    yield f"{report.source} → {report.dataset}: version {report.version}; {done}"
    ignored = sum(report.ignored.values())
    parts = f"{report.known:,} known + {report.read:,} read + {ignored:,} ignored + {report.pending:,} pending"
    yield f"{report.files:>10,}  files = {parts}"
    yield from _grown_lines(report)
    yield f"{report.items:>10,}  items = {report.kept:,} kept + {report.rejected:,} rejected"
    yield from (f"{count:>10,}  kept: {modality}" for modality, count in report.modalities.items())
    yield from (f"{count:>10,}  rejected: {reason}" for reason, count in report.reasons.items())
    yield from (f"{count:>10,}  ignored: {kind}" for kind, count in report.ignored.items())
    yield from match_lines(report.matches)
    yield from column_lines(report.columns)
    for name in ("volumes", "mixed_series", "repeated_positions", "missing_slices"):
        if report.volumes.get(name):
            yield f"{report.volumes[name]:>10,}  DICOM series: {name.replace('_', ' ')}"


def _grown_lines(report: JobReport) -> Iterator[str]:
    """What became of files that an earlier job has read."""
    if report.changed:
        yield f"{report.changed:>10,}  changed: read again"
    if report.pruned:
        yield f"{report.pruned:>10,}  vanished and pruned"
    if report.vanished:
        yield f"{report.vanished:>10,}  vanished: their samples stay (--prune drops them)"
    if report.removed:
        yield f"{report.removed:>10,}  samples removed"
    if report.revived:
        yield f"{report.revived:>10,}  duplicates revived: their original went"
