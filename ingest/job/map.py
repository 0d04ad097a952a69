"""The map step: one unit of raw files becomes staged shards and tables, a pure function of its input.

Under `staging/<job>/` a finished unit is `u000012.json` (counts and names, written last: its presence means done),
three Parquet tables, and the tars. Whatever is wrong with a raw file is a row of rejects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress

from ingest.job.unit_writer import UnitWriter
from ingest.picture.fingerprint import fingerprint, pixel_sha256
from ingest.picture.normalise import encode, reduce, to_picture
from ingest.picture.quality import find_fault
from ingest.privacy.burned_in import burned_in_policy, without_text
from ingest.privacy.silence import silence
from ingest.raw.archive_reading import open_items
from ingest.raw.disguise import HEAD_BYTES, disguise
from ingest.raw.items import RawFile, RawItem, RawRoot, RejectError
from ingest.readers import RawImage, ReadOptions, reader_for
from ingest.source.spec import SourceSpec
from ingest.staging.context import MapContext, UnitReport
from ingest.staging.folder import is_local, put_file, unit_name, workplace
from ingest.staging.unit import Unit
from shards.errors import AlreadyExistsError
from shards.store import Store, open_store

_COMPUTED = frozenset({"CT", "MR"})
"""Never captured from a screen: what is, shows a report or a rendering."""

_ALIKE = (frozenset({"Fundus", "OCT", "OCTA"}), frozenset({"Dermoscopy", "Endoscopy", "Microscopy", "Fundus"}))
"""Files of these modalities carry each other's tags (OP for scans of the retina, GM for photographs)."""

Beat = Callable[[int], None]
"""Called with the position of the raw file that is about to be read."""


def map_unit(context: MapContext, unit: Unit, beat: Beat, skip: Mapping[int, str]) -> UnitReport:
    """Read, normalise, judge, fingerprint and stage one unit.

    Args:
        context: The job.
        unit: The raw files.
        beat: Told the position of each raw file before it is read, so that a crash can be laid at its door.
        skip: Positions that are given up → reason (`crashed`, `timeout`).

    Returns:
        The unit's report, also stored as its completion marker.

    Raises:
        ConfigError: This machine lacks what the encoding policy asks for.
    """
    context.encoding.require()
    store = open_store(context.dataset_url)
    root = RawRoot(context.raw_url)
    with workplace(store, context.staging) as folder, silence():
        with UnitWriter(context, unit.index, folder, durable=is_local(store, context.staging)) as writer:
            files = open_items(root, list(unit.items), context.settings.limits)
            for position, (item, raw) in enumerate(files):
                beat(position)
                writer.begin(item)
                if position in skip:
                    writer.reject_file(skip[position])
                else:
                    _map_file(context, item, raw, writer)
        report = writer.report(len(unit.items))
        _publish(store, context.staging, writer, report)
    return report


def _publish(store: Store, staging: str, writer: UnitWriter, report: UnitReport) -> None:
    """Put tars and tables, then the marker; what an earlier, killed try left is replaced."""
    files = writer.files()
    store.delete([f"{staging}/{path.name}" for path in files])
    for path in files:
        with suppress(AlreadyExistsError):  # another worker mapped the same unit: the same bytes
            put_file(store, staging, path, f"{staging}/{path.name}")
    with suppress(AlreadyExistsError):
        store.put_if_absent(f"{staging}/{unit_name(report.index)}", report.to_json())


def _map_file(context: MapContext, item: RawItem, raw: RawFile, writer: UnitWriter) -> None:
    rule = context.spec.layout.rules[item.part]
    options = ReadOptions(
        frames=rule.frames,
        window=rule.window,
        group_tag=(rule.grouping or context.spec.grouping).tag,
        limits=context.settings.limits,
        place=item.place,
        straight=context.encoding.resampler == "native",
    )
    count = 0
    try:
        if context.listed is not None and writer.raw_path not in context.listed:
            raise RejectError("not_listed")
        if item.kind in ("reject", "unavailable"):
            raw.open()  # raises what the listing found, whatever readers there are for such a name
        for image in reader_for(rule.reader, raw.name)(raw, options):
            count += 1
            try:
                _map_image(context, item, image, writer)
            except RejectError as error:
                writer.reject(error.reason, error.detail, frame=image.frame, modality=image.modality)
            writer.items += 1  # what else it raises is counted with the file
        if count == 0:
            raise RejectError("no_image")
    except RejectError as error:
        writer.reject_file(error.reason, (_disguise(raw, error.reason) if count == 0 else "") or error.detail)
    except MemoryError:
        writer.reject_file("out_of_memory")
    except Exception as error:  # noqa: BLE001  # decoders raise anything on broken files; a bad file is data
        disguised = _disguise(raw, "unreadable") if count == 0 else ""
        writer.reject_file("undecodable" if count else "unreadable", disguised or type(error).__name__)


def _disguise(raw: RawFile, reason: str) -> str:
    """What a file really is that a reader could not make anything of."""
    if reason not in ("unreadable", "undecodable", "unsupported", "no_image"):
        return ""
    with suppress(Exception):  # it cannot be read at all: the reader's own word stands
        return disguise(raw.head(HEAD_BYTES))
    return ""


def _map_image(context: MapContext, item: RawItem, image: RawImage, writer: UnitWriter) -> None:
    settings = context.settings
    if image.fault:
        raise RejectError(image.fault, image.detail)
    if context.listed is not None and image.frame not in context.listed[writer.raw_path]:
        raise RejectError("not_listed")
    modality = _modality(context.spec, item, image)
    image, cropped = without_text(image, burned_in_policy(context.spec, settings))
    picture = to_picture(image)
    reduced = reduce(picture, context.encoding, source=image.source if picture is image.pixels else None)
    fault = find_fault(picture, reduced.gray, settings.quality, part_of_volume=image.part_of_volume)
    if fault:
        raise RejectError(*fault)
    digest = pixel_sha256(picture)
    writer.check_new(digest)
    encoded = encode(reduced, context.encoding, jpeg=None if cropped else image.jpeg)
    prints = fingerprint(reduced.gray)
    writer.add(image, modality=modality, picture=picture, digest=digest, encoded=encoded, prints=prints)


def _modality(spec: SourceSpec, item: RawItem, image: RawImage) -> str:
    """The tag of an image by the source's rule; where the source has one tag, the file's own word goes before it."""
    part, rule = spec.layout.rules[item.part], spec.modality_rule
    if part.modality:
        tag = part.modality
    elif rule is None:
        tag = image.modality if _contradicts(image.modality, spec.modality[0]) else spec.modality[0]
    else:
        tag = item.said_of(image.frame).modality if rule.by == "list" else image.modality
        if rule.by == "path":
            tag = next((tag for tag, regex in rule.patterns.items() if re.search(regex, item.inner_path)), "")
        if tag not in spec.modality:
            raise RejectError("unknown_modality", tag)
    if image.captured and tag in _COMPUTED:
        raise RejectError("screen_capture", "SOPClassUID")
    return tag


def _contradicts(stated: str, tag: str) -> bool:
    return bool(stated) and stated != tag and not any({stated, tag} <= family for family in _ALIKE)
