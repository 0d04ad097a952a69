"""The staged tars and tables of one unit, on local disk until they are published."""

from __future__ import annotations

import math
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingest.picture.fingerprint import Prints
from ingest.picture.normalise import Encoded
from ingest.privacy.pseudonyms import Pseudonyms, group_of
from ingest.raw.items import RawItem, RejectError
from ingest.readers import RawImage
from ingest.readers.pillow import Picture
from ingest.staging.context import MapContext, UnitReport
from ingest.staging.folder import unit_name
from ingest.staging.tables import SCHEMAS, TableSpool
from shards.dataset.shard_file import Sample, ShardFile, ShardWriter
from shards.schema import modality_folder


@dataclass(slots=True)
class _OpenShard:
    writer: ShardWriter
    name: str


@dataclass(slots=True)
class UnitWriter:
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

    def __enter__(self) -> UnitWriter:
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
        if label := self._item.said_of(image.frame).label:
            meta["label"] = label
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
