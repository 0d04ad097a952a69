"""The map step: one unit of raw files becomes staged shards and tables, a pure function of its input.

Under `staging/<job>/` a finished unit is `u000012.json` (counts and names, written last: its presence means done),
three Parquet tables, and the tars. Whatever is wrong with a raw file is a row of rejects.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.job.list import Unit
from ingest.picture.encoding import Encoding
from ingest.picture.fingerprint import Prints, fingerprint, pixel_sha256
from ingest.picture.normalise import Encoded, Picture, encode, reduce, to_picture
from ingest.picture.quality import find_fault
from ingest.privacy.pseudonyms import Pseudonyms, group_of
from ingest.privacy.silence import silence
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawFile, RawItem, RawRoot, RejectError
from ingest.readers import RawImage, ReadOptions, reader_for
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from ingest.staging.tables import SCHEMAS, TableSpool
from shards.dataset.shard_file import Sample, ShardFile, ShardWriter
from shards.errors import AlreadyExistsError
from shards.schema import modality_folder
from shards.store import Store, open_store

_WORK = "work"

Beat = Callable[[int], None]
"""Called with the position of the raw file that is about to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapContext:
    """What all units of a job share; small, and sent to every worker once.

    Attributes:
        spec: The source.
        settings: The job's settings.
        encoding: The dataset's policy.
        raw_url: Where the raw files lie.
        dataset_url: Where the dataset lies.
        job_id: The job.
        listed: Raw paths and frames to take (`raw_path` → frames), or None for all.
    """

    spec: SourceSpec
    settings: IngestSettings
    encoding: Encoding
    raw_url: str
    dataset_url: str
    job_id: str
    listed: Mapping[str, frozenset[str]] | None = None

    @property
    def staging(self) -> str:
        """The job's folder below the dataset."""
        return f"staging/{self.job_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of a unit.

    Attributes:
        index: The unit.
        files: Raw files read.
        items: Images met, and raw files (or the rest of one) that could not be read.
        kept: Images staged.
        rejected: Rejected images and files, by reason.
        shards: Staged tar → number of samples in it and its SHA-256 (hex), in the order they were begun.
    """

    index: int
    files: int
    items: int
    kept: int
    rejected: Mapping[str, int]
    shards: Mapping[str, tuple[int, str]]

    def to_json(self) -> bytes:
        """The unit's completion marker."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps(values).encode()

    @classmethod
    def from_json(cls, data: bytes) -> UnitReport:
        """A report out of its completion marker."""
        values = json.loads(data)
        values["shards"] = {name: (count, sha256) for name, (count, sha256) in values["shards"].items()}
        return cls(**values)


def unit_name(index: int, table: str = "") -> str:
    """File name of a unit's marker, or of one of its tables."""
    return f"u{index:06d}.{table}.parquet" if table else f"u{index:06d}.json"


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
        with _UnitWriter(context, unit.index, folder, durable=is_local(store, context.staging)) as writer:
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


@contextmanager
def workplace(store: Store, staging: str) -> Iterator[Path]:
    """A folder for a unit under way; where staging is a local folder it lies inside, so that nothing is copied."""
    inside = store.local_path(f"{staging}/{_WORK}")
    if inside is not None:
        inside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="biovfm-", dir=inside, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def is_local(store: Store, staging: str) -> bool:
    """Whether staged files lie on a disk of this machine: what is made there must be brought to the disk."""
    return store.local_path(staging) is not None


def put_file(store: Store, staging: str, file: Path, path: str) -> None:
    """Put a file out of a workplace under a path where there is nothing yet.

    Raises:
        AlreadyExistsError: There is something.
    """
    if is_local(store, staging):
        store.move_if_absent(f"{staging}/{_WORK}/{file.parent.name}/{file.name}", path)
    else:
        store.put_if_absent(path, file)


def _publish(store: Store, staging: str, writer: _UnitWriter, report: UnitReport) -> None:
    """Put tars and tables, then the marker; what an earlier, killed try left is replaced."""
    files = writer.files()
    store.delete([f"{staging}/{path.name}" for path in files])
    for path in files:
        with suppress(AlreadyExistsError):  # another worker mapped the same unit: the same bytes
            put_file(store, staging, path, f"{staging}/{path.name}")
    with suppress(AlreadyExistsError):
        store.put_if_absent(f"{staging}/{unit_name(report.index)}", report.to_json())


def _map_file(context: MapContext, item: RawItem, raw: RawFile, writer: _UnitWriter) -> None:
    layout = context.spec.layout
    options = ReadOptions(
        frames=layout.frames,
        window=layout.window,
        group_tag=context.spec.grouping.tag,
        limits=context.settings.limits,
        place=item.place,
        straight=context.encoding.resampler == "native",
    )
    count = 0
    try:
        if context.listed is not None and writer.raw_path not in context.listed:
            raise RejectError("not_listed")
        for image in reader_for(layout.reader, raw.name)(raw, options):
            count += 1
            try:
                _map_image(context, item, image, writer)
            except RejectError as error:
                writer.reject(error.reason, error.detail, frame=image.frame, modality=image.modality)
            writer.items += 1  # what else it raises is counted with the file
        if count == 0:
            raise RejectError("no_image")
    except RejectError as error:
        writer.reject_file(error.reason, error.detail)
    except MemoryError:
        writer.reject_file("out_of_memory")
    except Exception as error:  # noqa: BLE001  # decoders raise anything on broken files; a bad file is data
        writer.reject_file("undecodable" if count else "unreadable", type(error).__name__)


def _map_image(context: MapContext, item: RawItem, image: RawImage, writer: _UnitWriter) -> None:
    settings = context.settings
    if image.fault:
        raise RejectError(image.fault)
    if context.listed is not None and image.frame not in context.listed[writer.raw_path]:
        raise RejectError("not_listed")
    modality = _modality(context.spec, item, image)
    image, cropped = _burned_in(context, image)
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
    rule = spec.modality_rule
    if rule is None:
        return spec.modality[0]
    tag = item.stated.modality if rule.by == "list" else image.modality
    if rule.by == "path":
        tag = next((tag for tag, regex in rule.patterns.items() if re.search(regex, item.inner_path)), "")
    if tag not in spec.modality:
        raise RejectError("unknown_modality", tag)
    return tag


def _burned_in(context: MapContext, image: RawImage) -> tuple[RawImage, bool]:
    """Apply the policy for burned-in annotations."""
    from dataclasses import replace

    policy = context.settings.burned_in
    if policy == "source":
        policy = context.spec.burned_in
    if not image.burned_in or policy == "keep":
        return image, False
    if policy == "reject" or image.region is None:
        raise RejectError("burned_in", "" if policy == "reject" else "no region stated")
    top, left, bottom, right = image.region
    return replace(image, pixels=image.pixels[top:bottom, left:right], region=None), True


@dataclass(slots=True)
class _OpenShard:
    writer: ShardWriter
    name: str


@dataclass(slots=True)
class _UnitWriter:
    """The staged tars and tables of one unit, on local disk until they are published."""

    context: MapContext
    index: int
    folder: Path
    durable: bool
    raw_path: str = ""
    items: int = 0
    _item: RawItem = field(default_factory=lambda: RawItem(path=""))
    _kept: int = 0
    _rejected: Counter[str] = field(default_factory=Counter)
    _seen: dict[str, str] = field(default_factory=dict)
    _open: dict[str, _OpenShard] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)
    _finished: dict[str, ShardFile] = field(default_factory=dict)
    _tables: dict[str, TableSpool] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)
    _pseudonyms: Pseudonyms = field(init=False)

    def __post_init__(self) -> None:
        self._pseudonyms = Pseudonyms(self.context.spec, self.context.settings)

    def __enter__(self) -> _UnitWriter:
        for name, schema in SCHEMAS.items():
            spool = TableSpool(self.folder / unit_name(self.index, name), schema())
            self._tables[name] = self._stack.enter_context(spool)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        for modality in list(self._open):
            if kind is None:
                self._close_shard(modality)
            else:
                self._open.pop(modality).writer.__exit__(kind, error, trace)
        self._stack.__exit__(kind, error, trace)

    def begin(self, item: RawItem) -> None:
        """Another raw file starts."""
        self._item = item
        self.raw_path = self._pseudonyms.raw_path(item)

    def reject(self, reason: str, detail: str = "", *, frame: str = "", modality: str = "") -> None:
        """Note a raw file or image that is not taken."""
        self._rejected[reason] += 1
        row = {"source": self.context.spec.id, "modality": modality, "raw_path": self.raw_path, "raw_frame": frame}
        self._tables["rejects"].add({**row, "reason": reason, "detail": detail, "job_id": self.context.job_id})

    def reject_file(self, reason: str, detail: str = "") -> None:
        """Note a raw file, or the rest of one, that cannot be read."""
        self.items += 1
        self.reject(reason, detail)

    def check_new(self, digest: str) -> None:
        """Raise where the unit holds these pixels already."""
        if digest in self._seen:
            raise RejectError("duplicate", self._seen[digest])
        self._seen[digest] = self._key(digest)

    def add(
        self, image: RawImage, *, modality: str, picture: Picture, digest: str, encoded: Encoded, prints: Prints
    ) -> None:
        """Stage one image."""
        group = group_of(self.context.spec, self._item, frame=image.frame, stated=image.group)
        group_id = self._pseudonyms.group_id(group)
        row = self._row(image, modality, digest, encoded, group_id)
        height, width = picture.shape[:2]
        meta = {name: value for name, value in row.items() if name not in ("job_id", "extension")}
        meta |= {"raw_width": width, "raw_height": height, "phash": prints.whole.hex()}
        meta |= {name: _number(row[name]) for name in ("window_center", "window_width")}
        shard = self._shard(modality)
        sample = Sample(key=row["key"], extension=encoded.extension, image=encoded.data, meta=meta)
        place = shard.writer.add(sample)
        placed = {name: getattr(place, name) for name in ("shard_row", "byte_offset", "byte_length", "crc32c")}
        self._tables["samples"].add({**row, **placed, "shard": shard.name})
        self._tables["prints"].add(
            {
                **{name: row[name] for name in ("key", "source", "group_id", "pixel_sha256")},
                "phash": prints.whole,
                "phash_centre": prints.centre,
                "thumb": prints.thumb.tobytes(),
            }
        )
        self._kept += 1
        if shard.writer.size >= self.context.settings.shard_bytes:
            self._close_shard(modality)

    def report(self, files: int) -> UnitReport:
        """The counts, once all is written."""
        shards = {name: (self._finished[name].num_samples, self._finished[name].sha256) for name in self._names}
        return UnitReport(
            index=self.index,
            files=files,
            items=self.items,
            kept=self._kept,
            rejected=dict(sorted(self._rejected.items())),
            shards=shards,
        )

    def files(self) -> list[Path]:
        """Everything to publish, tables last."""
        return [self._finished[name].path for name in self._names] + [spool.path for spool in self._tables.values()]

    def _key(self, digest: str) -> str:
        return f"{self.context.spec.id}-{digest[:16]}"

    def _row(self, image: RawImage, modality: str, digest: str, encoded: Encoded, group_id: str) -> dict[str, Any]:
        spec = self.context.spec
        low, high = image.low, image.high
        ranged = low is not None and high is not None and (low, high) != (0.0, 255.0)
        return {
            "key": self._key(digest),
            "source": spec.id,
            "modality": modality,
            "anatomy": self._item.stated.anatomy or "|".join(spec.anatomy),
            "group_id": group_id,
            "extension": encoded.extension,
            "width": encoded.width,
            "height": encoded.height,
            "channels": encoded.channels,
            "pixel_sha256": digest,
            "raw_path": self.raw_path,
            "raw_frame": image.frame,
            "licence": self._item.stated.licence or spec.licence,
            "bit_depth": image.bit_depth,
            "window_center": (high + low) / 2 if ranged else math.nan,  # type: ignore[operator]  # `ranged` says both are numbers
            "window_width": high - low if ranged else math.nan,  # type: ignore[operator]
            "job_id": self.context.job_id,
        }

    def _shard(self, modality: str) -> _OpenShard:
        if modality not in self._open:
            name = f"u{self.index:06d}-{modality_folder(modality)}-{len(self._names):04d}.tar"
            self._names.append(name)
            self._open[modality] = _OpenShard(ShardWriter(self.folder / name, durable=self.durable), name)
        return self._open[modality]

    def _close_shard(self, modality: str) -> None:
        shard = self._open.pop(modality)
        self._finished[shard.name] = shard.writer.close()


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value
