"""`biovfm ingest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from infra.console import emit, progress, stderr

if TYPE_CHECKING:
    from ingest.job import JobReport, Progress
    from ingest.settings import IngestSettings
    from ingest.spec import SourceSpec


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
    settings: Path | None = None,
    workers: int = 1,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Ingest one source of raw images into a dataset; the dataset is made where there is none.

    The same command again goes on where an interrupted one stopped; of a finished one it changes nothing.

    Example: `biovfm ingest kvasir-capsule /raw/kvasir-capsule ./data --workers 8`

    Example: `biovfm ingest our-ct /raw/ct.zip ./data --modality CT`

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
        Nothing in the paths or tags of your own source identifies a person: keep raw paths readable.
    settings
        YAML file with ingest settings.
    workers
        Processes on this machine.
    """
    from ingest.job import run_job

    spec = _spec(
        source,
        modality,
        reader=reader,
        licence=licence,
        anatomy=anatomy,
        grouping=None if group is None else {"by": group},
        deidentified=deidentified,
    )
    with _watch() as watcher:
        report = run_job(spec, raw, dataset, workers=workers, settings=_settings(settings, spec), progress=watcher)
    if json_:
        emit(report.to_dict())
    else:
        print_report(report)


def _spec(source: str, modality: tuple[str, ...], **flags: Any) -> SourceSpec:
    from ingest.spec import from_flags, load_spec
    from shards.errors import ConfigError

    given = {name: value for name, value in flags.items() if value not in (None, (), False, "auto", "unknown")}
    if modality:
        return from_flags(name=source, modality=modality, **given)
    if given:
        raise ConfigError(
            f"--{next(iter(given))} describes a source of your own", hint="add --modality, or put it into the YAML file"
        )
    return load_spec(source)


def _settings(path: Path | None, spec: SourceSpec) -> IngestSettings:
    from ingest.secret import load_secret
    from ingest.settings import IngestSettings
    from shards.settings import load_yaml, parse

    checked = parse(IngestSettings, load_yaml(path) if path else {}, where=str(path or "settings"))
    return checked.model_copy(update={"secret": load_secret(create=not spec.deidentified)})


@contextmanager
def _watch() -> Iterator[Callable[[Progress], None]]:
    with progress() as bars:
        bar = bars.add_task("list", total=None, note="")

        def show(now: Progress) -> None:
            note = f"{now.kept:,} kept, {now.rejected:,} rejected" if now.stage == "map" else ""
            bars.update(bar, description=now.stage, completed=now.done, total=now.total or None, note=note)

        yield show


def print_report(report: JobReport) -> None:
    """The counts of a job for people, on standard error."""
    console = stderr()
    done = "was ingested before, nothing to do" if report.repeated else f"took {report.seconds:.1f} s"
    console.print(
        f"{report.source} → {report.dataset}: {report.files:,} raw files gave {report.items:,} images (or failures) = "
        f"{report.kept:,} kept + {report.rejected:,} rejected; version {report.version}; {done}"
    )
    for modality, count in report.modalities.items():
        console.print(f"  {count:>10,}  {modality}")
    for reason, count in report.reasons.items():
        console.print(f"  {count:>10,}  rejected: {reason}")
