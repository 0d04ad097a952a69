"""The map step: one unit of raw files becomes staged shards and tables, a pure function of its input.

Whatever is wrong with a raw file is a row of rejects. A file that cannot be read for now (no right to it, no network)
is pending. An error of this machine, or of writing, fails the unit, which is tried again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from threading import Thread
from typing import Final

from ingest.engines.base import Engine, Task, TaskEvent
from ingest.engines.local import LocalEngine
from ingest.job.parts import run_in_parts
from ingest.job.report import Progress, UnitSums, Watcher
from ingest.job.share import Share
from ingest.job.unit_writer import Prepared, UnitWriter
from ingest.picture.fingerprint import fingerprint
from ingest.picture.normalise import encode, reduce, to_picture
from ingest.picture.quality import find_fault
from ingest.privacy.burned_in import burned_in_policy, looked_at, without_text
from ingest.privacy.silence import silence
from ingest.raw.archive_reading import open_items
from ingest.raw.disguise import HEAD_BYTES, answer_instead, disguise
from ingest.raw.faults import fault_of
from ingest.raw.items import RawFile, RawItem, RejectError
from ingest.raw.root import RawRoot
from ingest.readers import RawImage, ReadOptions, reader_for
from ingest.source.spec import SourceSpec
from ingest.staging.context import MapContext
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.unit import Unit
from shards.dataset.dataset import Dataset
from shards.errors import MachineError, StoreError
from shards.pixels.digest import pixel_sha256

_COMPUTED: Final = frozenset({"CT", "MR"})
"""Never captured from a screen: what is, shows a report or a rendering."""

_ALIKE: Final = (
    frozenset({"Fundus", "OCT", "OCTA"}),
    frozenset({"Dermoscopy", "Endoscopy", "Microscopy", "Fundus"}),
)
"""Files of these modalities carry each other's tags (OP for scans of the retina, GM for photographs)."""

_TRIES: Final = 3
"""Times a unit is mapped whose staged files turn out to be damaged."""

Beat = Callable[[int], None]
"""Called with the position of the raw file that is about to be read, and again whenever reading it gets on."""


def map_units(
    engine: Engine,
    dataset: Dataset,
    context: MapContext,
    staging: Staging,
    units: Sequence[Unit],
    *,
    share: Share | None,
    tell: Watcher,
) -> tuple[Sequence[UnitReport] | None, int]:
    """Map the units that no earlier run has finished, and those again whose staged files are damaged.

    Units in which a run that was stopped left raw files pending are mapped again too, unless other tasks may be using
    what is staged of them, or a table has the job's rows already: the others have to get rows of the same units.

    Returns:
        All reports in the order of units (None while other tasks have some left), and how many were there already.

    Raises:
        EngineError: A unit failed each time it was tried.
        StoreError: What is staged comes back damaged again and again.
    """
    resumed = None
    mapped: set[int] = set()
    if share is None:
        _forget_pending(dataset, context.job_id, staging)
    for _ in range(_TRIES):
        reports, found = _map_missing(engine, context, staging, units, share=share, mapped=mapped, tell=tell)
        resumed = found if resumed is None else resumed
        if reports is None:
            return None, resumed
        damaged = _damaged(engine, context, reports)
        if not damaged:
            return reports, resumed
        staging.forget(damaged)
    raise StoreError(
        f"what unit {damaged[0]} staged is damaged each time it is read again",
        hint="check the storage and run the same command again",
    )


def _forget_pending(dataset: Dataset, job_id: str, staging: Staging) -> None:
    """Let the units with pending files be mapped again, while nothing of the job is in a table."""
    pending = [report.index for report in staging.reports().values() if report.pending]
    if pending and not dataset.has_begun(job_id):
        staging.forget(pending)


def _map_missing(
    engine: Engine,
    context: MapContext,
    staging: Staging,
    units: Sequence[Unit],
    *,
    share: Share | None,
    mapped: set[int],
    tell: Watcher,
) -> tuple[Sequence[UnitReport] | None, int]:
    """Map what is missing of this process's share; `mapped` are the units that it has mapped, and gets these too."""
    reports = staging.reports()
    resumed = len(reports)
    ours = [unit for unit in units if share is None or share.has(unit.index)]
    left = [unit for unit in ours if unit.index not in reports]
    others = reports.keys() - {unit.index for unit in ours}
    earlier = UnitSums.of([report for index, report in reports.items() if index not in others | mapped])
    mapped.update(unit.index for unit in left)
    Thread(target=import_module, args=("duckdb",)).start()  # settling needs it, and it is large
    total = sum(len(unit.items) for unit in ours)

    def told(running: Collection[TaskEvent]) -> None:
        done = UnitSums.of([report for index, report in reports.items() if index not in others])
        tell(_progress(done, running, total, earlier))

    told(())
    for running in run_in_parts(engine, map_unit, context, left, reports):
        told(running)
    if share is not None:
        reports |= staging.reports()
    if any(unit.index not in reports for unit in units):
        return None, resumed
    return [reports[unit.index] for unit in units], resumed


def _progress(done: UnitSums, running: Collection[TaskEvent], total: int, earlier: UnitSums) -> Progress:
    return Progress(
        stage="map",
        done=done.files + sum(max(0, event.step) for event in running),
        total=total,
        kept=done.kept,
        rejected=done.rejected,
        images=done.images + sum(max(0, event.beats - event.step - 1) for event in running),
        earlier=earlier,
    )


def _damaged(engine: Engine, context: MapContext, units: Sequence[UnitReport]) -> list[int]:
    """The units whose staged files are not what their workers wrote, or do not fit their rows."""
    tasks = [Task(index=unit.index, payload=unit) for unit in units]
    runner = engine if len(tasks) > 1 else LocalEngine(0)  # checked sooner than a process starts
    results = {event.index: event.result for event in runner.run(check_unit, context, tasks) if event.done}
    return sorted(index for index, sound in results.items() if not sound)


def check_unit(context: MapContext, unit: UnitReport, beat: Beat, skip: Mapping[int, str]) -> bool:
    """Compare a unit's staged files with its report (an engine's function)."""
    del skip
    beat(0)
    return context.staging().is_sound(unit)


def map_unit(context: MapContext, unit: Unit, beat: Beat, skip: Mapping[int, str]) -> UnitReport:
    """Read, normalise, judge, fingerprint and stage one unit, or a part of one (an engine's function).

    Args:
        context: The job.
        unit: The raw files; what comes of a part need not be on the disk when it is done.
        beat: Told the position of each raw file before it is read and with each image of it, so that a crash is known
            to be that file's, and a long file that gets on is not stopped.
        skip: Positions that are given up → why, as the detail of `over_budget`.

    Returns:
        The unit's report, also stored as its completion marker.

    Raises:
        ConfigError: This machine lacks what the encoding policy asks for.
        MachineError: This machine has no space, memory or file handles left.
        StoreError: What was made could not be stored.
    """
    context.encoding.require()
    staging, is_whole = context.staging(), unit.num_parts == 1
    if not is_whole:
        staging = staging.part(unit.index, unit.part, unit.num_parts)
    with staging.workplace() as folder, silence():
        with UnitWriter(context, unit.index, folder, durable=staging.is_local and is_whole) as writer:
            files = open_items(RawRoot(context.raw_url), list(unit.items), context.settings.limits)
            for position, (item, raw) in enumerate(files):
                beat(position)
                writer.begin(item)
                if position in skip:
                    writer.reject("over_budget", skip[position], modality=tag_of(context.spec, item))
                    writer.end()
                elif item.place is not None and item.place.unknown:
                    writer.withhold()
                else:
                    _map_file(context, item, raw, writer, partial(beat, position))
        report = writer.report()
        staging.publish(writer.files(), report)
    return report


def _map_file(context: MapContext, item: RawItem, raw: RawFile, writer: UnitWriter, get_on: Callable[[], None]) -> None:
    images = _prepared(context, item, raw, writer, get_on)
    while True:
        try:
            prepared = next(images, None)
        except Exception as error:  # decoders raise anything on broken files; a bad file is data
            fault = fault_of(error)
            if isinstance(fault, MachineError):
                raise fault from error
            if fault is not None or (_is_served(context, item) and _is_answer(raw)):
                writer.withhold()
                return
            started = writer.num_images > 0
            reason, detail = _reason(error, started=started)
            writer.reject(
                reason, ("" if started else _disguise(raw, reason)) or detail, modality=tag_of(context.spec, item)
            )
            break
        if prepared is None:
            break
        writer.add(prepared)
    writer.end()


def _reason(error: Exception, *, started: bool) -> tuple[str, str]:
    """Why a file, or the rest of one, is rejected."""
    if isinstance(error, RejectError):
        return error.reason, error.detail
    return "undecodable" if started else "unreadable", type(error).__name__


def _is_served(context: MapContext, item: RawItem) -> bool:
    """Whether a web server gives the file, and may give a page of its own with status 200 instead."""
    return item.kind == "url" or context.raw_url.startswith(("http://", "https://"))


def _is_answer(raw: RawFile) -> bool:
    with suppress(Exception):  # it cannot be read at all
        return bool(answer_instead(raw.head(HEAD_BYTES)))
    return False


def _disguise(raw: RawFile, reason: str) -> str:
    """What a file really is that a reader could not make anything of."""
    if reason not in ("unreadable", "undecodable", "unsupported", "no_image"):
        return ""
    with suppress(Exception):  # it cannot be read at all: the reader's own word stands
        return disguise(raw.head(HEAD_BYTES), raw.name)
    return ""


def _prepared(
    context: MapContext, item: RawItem, raw: RawFile, writer: UnitWriter, get_on: Callable[[], None]
) -> Iterator[Prepared]:
    """The images of a file that are to be stored; those that are not taken are told the writer."""
    if context.listed is not None and writer.raw_path not in context.listed:
        raise RejectError("not_listed")
    if item.kind in ("reject", "unavailable"):
        raw.open()  # raises what the listing found, whatever readers there are for such a name
    rule = context.spec.layout.rules[item.part]
    options = ReadOptions(
        frames=rule.frames,
        window=rule.window,
        group_tag=(rule.grouping or context.spec.grouping).tag,
        limits=context.settings.limits,
        place=item.place,
        straight=context.encoding.resampler == "native",
        get_on=get_on,
    )
    count = 0
    for image in reader_for(rule.reader, raw.name)(raw, options):
        count += 1
        get_on()
        if context.retry is not None and not context.retry.takes(writer.raw_path, image.frame):
            continue
        try:
            yield _prepare(context, item, image, writer)
        except Exception as error:  # this image's own: the reader has the others still
            if fault_of(error) is not None:
                raise
            reason, detail = _reason(error, started=True)
            writer.reject(reason, detail, frame=image.frame, modality=tag_of(context.spec, item, image))
    if count == 0:
        raise RejectError("no_image")


def _prepare(context: MapContext, item: RawItem, image: RawImage, writer: UnitWriter) -> Prepared:
    settings = context.settings
    if image.fault:
        raise RejectError(image.fault, image.detail)
    if context.listed is not None and image.frame not in context.listed[writer.raw_path]:
        raise RejectError("not_listed")
    modality = tag_of(context.spec, item, image)
    if not modality:
        raise RejectError("unknown_modality", image.modality)
    if image.captured and modality in _COMPUTED:
        raise RejectError("screen_capture", "SOPClassUID")
    policy = burned_in_policy(context.spec, settings)
    image, cropped = without_text(image, policy)
    picture = to_picture(image)
    reduced = reduce(picture, context.encoding, source=image.source if picture is image.pixels else None)
    fault = find_fault(picture, reduced.gray, settings.quality, part_of_volume=image.part_of_volume)
    if fault:
        raise RejectError(*fault)
    digest = pixel_sha256(picture)
    writer.check_new(digest)
    if settings.find_text:
        image = looked_at(image, reduced.pixels, policy)
    encoded = encode(reduced, context.encoding, jpeg=None if cropped else image.jpeg)
    height, width = picture.shape[:2]
    prints = fingerprint(reduced.gray)
    return Prepared(image=image, modality=modality, size=(width, height), digest=digest, encoded=encoded, prints=prints)


def tag_of(spec: SourceSpec, item: RawItem, image: RawImage | None = None) -> str:
    """The modality tag of an image, or of a whole file; empty where the source's rule gives none of its tags.

    Where the source has one tag, the file's own word goes before it.
    """
    part, rule = spec.layout.rules[item.part], spec.modality_rule
    if part.modality:
        return part.modality
    tag = "" if image is None else image.modality
    if rule is None:
        return tag if _contradicts(tag, spec.modality[0]) else spec.modality[0]
    if rule.by == "list":
        tag = (item.stated if image is None else item.said_of(image.frame)).modality
    elif rule.by == "path":
        tag = next((tag for tag, regex in rule.patterns.items() if re.search(regex, item.inner_path)), "")
    return tag if tag in spec.modality else ""


def _contradicts(stated: str, tag: str) -> bool:
    return bool(stated) and stated != tag and not any({stated, tag} <= family for family in _ALIKE)
