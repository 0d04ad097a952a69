"""A look at rejected images: decoded once more from the raw data, never stored.

A dataset keeps no pixel of what was rejected, so the pictures of a job's report are read again where the raw data
lie, a few a reason, chosen by hash. Files that could not be decoded or that crashed a decoder are not touched again,
and pictures rejected for burned-in annotations are not shown: their text may name a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.job.list import Listing
from ingest.picture.normalise import to_picture
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.privacy.silence import silence
from ingest.raw.archive_reading import open_items
from ingest.raw.items import RawFile, RejectError
from ingest.raw.root import RawRoot
from ingest.readers import RawImage, ReadOptions, reader_for
from ingest.readers.pillow import Picture
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec
from shards.dataset.dataset import Dataset

SHOWN: Final = (
    *("too_small", "extreme_aspect", "blank", "empty_slice", "unknown_modality", "duplicate", "near_duplicate"),
    "eval_overlap",
)
"""Reasons whose pictures were decoded when they were rejected."""

TILE_PX: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Glimpse:
    """A rejected picture.

    Attributes:
        reason: Why it was rejected.
        raw_path: As the rejects table has it (a keyed hash where paths are hidden).
        raw_frame: Its frame.
        detail: Of near duplicates, the key of the sample that stays.
        tile: `(96, 96, 3)` uint8, the whole picture on black.
    """

    reason: str
    raw_path: str
    raw_frame: str
    detail: str
    tile: NDArray[np.uint8]


def look_at_rejects(
    dataset: Dataset,
    job_id: str,
    *,
    spec: SourceSpec,
    listing: Listing,
    raw_url: str,
    settings: IngestSettings,
    num: int,
) -> list[Glimpse]:
    """Up to `num` rejected pictures of each reason in `SHOWN`, in the order of the listing."""
    rows = _chosen(dataset, job_id, num)
    names = Pseudonyms(spec, settings)
    wanted: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        wanted.setdefault(row["raw_path"], []).append(row)
    items = [(item, wanted[path]) for item in listing.items if (path := names.raw_path(item)) in wanted]
    glimpses: list[Glimpse] = []
    with silence():
        files = open_items(RawRoot(raw_url), [item for item, _ in items], settings.limits)
        for (item, raw), (_, asked) in zip(files, items, strict=True):
            rule = spec.layout.rules[item.part]
            tag = (rule.grouping or spec.grouping).tag
            options = ReadOptions(frames=rule.frames, window=rule.window, group_tag=tag, limits=settings.limits)
            glimpses += _glimpses(rule.reader, raw, asked, options)
    return glimpses


def _chosen(dataset: Dataset, job_id: str, num: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = dataset.query(
        "SELECT reason, raw_path, raw_frame, detail FROM (SELECT *, row_number() OVER (PARTITION BY reason "
        "ORDER BY md5(raw_path || '#' || raw_frame)) AS turn FROM rejects WHERE job_id = ? "
        "AND list_contains(?, reason)) WHERE turn <= ? ORDER BY reason, turn",
        params=[job_id, list(SHOWN), num],
    ).to_pylist()
    return rows


def _glimpses(reader: str, raw: RawFile, asked: Sequence[dict[str, Any]], options: ReadOptions) -> Iterator[Glimpse]:
    """The pictures of one file that are asked for; none where it cannot be read any more."""
    frames = {row["raw_frame"]: row for row in asked}
    try:
        images: list[RawImage] = []
        for image in reader_for(reader, raw.name)(raw, options):
            if image.frame in frames and not image.fault:
                yield _glimpse(frames.pop(image.frame), to_picture(image))
            elif not images:
                images.append(image)  # a slice of a series: it has its frame from its place there
            if not frames:
                return
        if len(frames) == 1 and images and not images[0].frame and not images[0].fault:
            yield _glimpse(next(iter(frames.values())), to_picture(images[0]))
    except (RejectError, Exception):  # noqa: BLE001  # decoders raise anything; the row stands without its picture
        return


def _glimpse(row: dict[str, Any], picture: Picture) -> Glimpse:
    return Glimpse(**{name: row[name] for name in ("reason", "raw_path", "raw_frame", "detail")}, tile=tile_of(picture))


def tile_of(picture: Picture) -> NDArray[np.uint8]:
    """The whole picture, scaled into a `(96, 96, 3)` tile."""
    rgb = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    height, width = rgb.shape[:2]
    scale = TILE_PX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    small = np.asarray(Image.fromarray(rgb).resize(size, method))
    out = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    top, left = (TILE_PX - size[1]) // 2, (TILE_PX - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out
