"""The staged tars and tables of one unit, on local disk until they are published."""

from __future__ import annotations

import hashlib
import io
import math
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.duplicates.neighbours import Neighbourhood, neighbourhood_of
from ingest.picture.fingerprint import Prints
from ingest.picture.normalise import Encoded
from ingest.privacy.pseudonyms import Pseudonyms, group_of
from ingest.raw.items import RawItem, RejectError
from ingest.readers import RawImage
from ingest.staging.context import MapContext
from ingest.staging.folder import Staging, unit_file, unit_tar
from ingest.staging.report import UnitReport
from ingest.staging.tables import STAGED_SCHEMAS, TableSpool
from shards.dataset.shard_file import Placement, Sample, ShardFile, ShardWriter, read_blocks
from shards.schema import modality_folder


@dataclass(slots=True)
class _OpenShard:
    writer: ShardWriter
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """One image that is to be stored.

    Attributes:
        image: As its file holds it.
        modality: Its tag.
        size: Width and height in pixels before it was reduced.
        digest: SHA-256 (hex) of its canonical pixels.
        encoded: The stored image.
        prints: Its fingerprints.
    """

    image: RawImage
    modality: str
    size: tuple[int, int]
    digest: str
    encoded: Encoded
    prints: Prints


@dataclass(slots=True)
class UnitWriter:
    """The staged tars and tables of one unit, on local disk until they are published.

    Files come one after the other: `begin`, then `add` and `reject` for what comes of it, then `end`, or `withhold`
    where the file could not be read to its end for now. Whatever `add` raises is an error of this machine.
    """

    context: MapContext
    index: int
    folder: Path
    durable: bool
    raw_path: str = ""
    _files: int = 0
    _pending: int = 0
    _items: int = 0
    _first: int = 0
    _withheld: list[int] = field(default_factory=list)
    _refused: list[tuple[str, str, str, str]] = field(default_factory=list)
    _digests: list[str] = field(default_factory=list)
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

    def __enter__(self) -> UnitWriter:
        for name, schema in STAGED_SCHEMAS.items():
            spool = TableSpool(self.folder / unit_file(self.index, name), schema(), durable=self.durable)
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
        self._first = self._kept
        self._refused.clear()
        self._digests.clear()

    def end(self) -> None:
        """The raw file was read."""
        for reason, detail, frame, modality in self._refused:
            self._rejected[reason] += 1
            row = {"source": self.context.spec.id, "modality": modality, "raw_path": self.raw_path, "raw_frame": frame}
            self._tables["rejects"].add({**row, "reason": reason, "detail": detail, "job_id": self.context.job_id})
        self._items += self.num_images
        self._files += 1
        retry = self.context.retry
        self._note("revived" if retry is not None and retry.revives(self.raw_path) else "read")

    def withhold(self) -> None:
        """The raw file cannot be read now: nothing that came of it counts, and another run reads it again."""
        for digest in self._digests:
            del self._seen[digest]
        self._withheld += range(self._first, self._kept)
        self._pending += 1
        self._note("pending")

    @property
    def num_images(self) -> int:
        """What has come of the raw file so far."""
        return self._kept - self._first + len(self._refused)

    def _note(self, state: str) -> None:
        item, context = self._item, self.context
        row = {"source": context.spec.id, "raw_path": self.raw_path, "size": item.size}
        row["stamp"] = self._pseudonyms.stamp(item)
        self._tables["raw_files"].add({**row, "state": state, "rules": context.rules, "job_id": context.job_id})

    def reject(self, reason: str, detail: str = "", *, frame: str = "", modality: str = "") -> None:
        """Note an image that is not taken, or the file (or the rest of it) where it cannot be read."""
        self._refused.append((reason, detail, frame, modality))

    def check_new(self, digest: str) -> None:
        """Raise where the unit holds these pixels already."""
        if digest in self._seen:
            raise RejectError("duplicate", self._seen[digest])

    def add(self, prepared: Prepared) -> None:
        """Stage one image."""
        image, encoded, prints = prepared.image, prepared.encoded, prepared.prints
        group = group_of(self.context.spec, self._item, frame=image.frame, stated=image.group)
        group_id = self._pseudonyms.group_id(group)
        row = self._row(image, prepared.modality, prepared.digest, encoded, group_id)
        width, height = prepared.size
        meta = {name: value for name, value in row.items() if name not in ("job_id", "extension")}
        meta |= {"raw_width": width, "raw_height": height, "phash": prints.whole.hex()}
        if label := self._item.said_of(image.frame).label:
            meta["label"] = label
        meta |= {name: _number(row[name]) for name in ("window_center", "window_width")}
        shard = self._shard(prepared.modality)
        sample = Sample(key=row["key"], extension=encoded.extension, image=encoded.data, meta=meta)
        self._note_place(row, shard, shard.writer.add(sample))
        self._tables["fingerprints"].add(
            {
                **{name: row[name] for name in ("key", "source", "group_id", "pixel_sha256")},
                "phash": prints.whole,
                "phash_centre": prints.centre,
                "thumb": prints.thumb.tobytes(),
            }
        )
        self._tables["neighbours"].add(self._neighbourhood(image)._asdict())
        self._seen[prepared.digest] = row["key"]
        self._digests.append(prepared.digest)

    def append(self, staging: Staging, part: UnitReport) -> None:
        """Add what was staged of the next files of this unit by themselves, as if they were read now.

        Raises:
            RejectError: An image of theirs is here already: with these files in one piece it would be a reject.
            StoreError: What is staged is damaged or gone.
        """
        rows = {name: staging.checked_rows(part, name) for name in STAGED_SCHEMAS}
        for row in rows["index"]:
            self.check_new(row["pixel_sha256"])
        blocks = {tar: read_blocks(io.BytesIO(staging.checked_tar(part, tar)), name=tar) for tar in part.shards}
        first = self._kept
        for row in rows.pop("index"):
            shard = self._shard(row["modality"])
            self._note_place(row, shard, shard.writer.add_block(next(blocks[row["shard"]])))
            if self._kept - first - 1 not in part.withheld:
                self._seen[row["pixel_sha256"]] = row["key"]
        for name, others in rows.items():
            for row in others:
                self._tables[name].add(row)
        self._withheld += [first + position for position in part.withheld]
        self._files += part.files
        self._pending += part.pending
        self._items += part.items
        self._rejected.update(part.rejected)

    def _note_place(self, row: Mapping[str, Any], shard: _OpenShard, place: Placement) -> None:
        """An image of this row was added to a shard."""
        placed = {name: getattr(place, name) for name in ("shard_row", "byte_offset", "byte_length", "crc32c")}
        self._tables["index"].add({**row, **placed, "shard": shard.name})
        self._kept += 1
        if shard.writer.size >= self.context.settings.shard_bytes:
            self._close_shard(row["modality"])

    def _neighbourhood(self, image: RawImage) -> Neighbourhood:
        """Where the image stands among other files; nowhere where something says what belongs together."""
        spec, item = self.context.spec, self._item
        grouping = spec.layout.rules[item.part].grouping or spec.grouping
        alone = grouping.by == "file" and not (image.frame or item.place or item.said_of(image.frame).group)
        return neighbourhood_of(spec.id, item.inner_path) if alone else Neighbourhood()

    def report(self) -> UnitReport:
        """The counts, once all is written."""
        shards = {name: (self._finished[name].num_samples, self._finished[name].sha256) for name in self._names}
        return UnitReport(
            index=self.index,
            files=self._files,
            pending=self._pending,
            items=self._items,
            kept=self._kept,
            rejected=dict(sorted(self._rejected.items())),
            shards=shards,
            tables={name: _digest(spool.path) for name, spool in self._tables.items()},
            withheld=tuple(self._withheld),
        )

    def files(self) -> list[Path]:
        """Everything to publish, tables last."""
        return [self._finished[name].path for name in self._names] + [spool.path for spool in self._tables.values()]

    def _key(self, digest: str) -> str:
        return f"{self.context.spec.id}-{digest[:16]}"

    def _row(self, image: RawImage, modality: str, digest: str, encoded: Encoded, group_id: str) -> dict[str, Any]:
        spec, stated = self.context.spec, self._item.said_of(image.frame)
        low, high = image.low, image.high
        ranged = low is not None and high is not None and (low, high) != (0.0, 255.0)
        return {
            "key": self._key(digest),
            "source": spec.id,
            "modality": modality,
            "anatomy": stated.anatomy or "|".join(spec.anatomy),
            "group_id": group_id,
            "extension": encoded.extension,
            "width": encoded.width,
            "height": encoded.height,
            "channels": encoded.channels,
            "pixel_sha256": digest,
            "raw_path": self.raw_path,
            "raw_frame": image.frame,
            "licence": stated.licence or spec.licence,
            "bit_depth": image.bit_depth,
            "window_center": (high + low) / 2 if ranged else math.nan,  # type: ignore[operator]  # `ranged` says both are numbers
            "window_width": high - low if ranged else math.nan,  # type: ignore[operator]
            "job_id": self.context.job_id,
            "burned_in": image.burned_in.value,
            "burned_in_by": image.burned_in.by,
        }

    def _shard(self, modality: str) -> _OpenShard:
        if modality not in self._open:
            name = unit_tar(self.index, modality_folder(modality), len(self._names))
            self._names.append(name)
            self._open[modality] = _OpenShard(ShardWriter(self.folder / name, durable=self.durable), name)
        return self._open[modality]

    def _close_shard(self, modality: str) -> None:
        shard = self._open.pop(modality)
        self._finished[shard.name] = shard.writer.close()


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _number(value: float) -> float | None:
    """JSON knows no NaN."""
    return None if math.isnan(value) else value
