"""The report of one ingest job: what came in, what was kept, what was rejected and why, with pictures of both.

It is made after the job, from the dataset's tables and a second look at a few raw files; the dataset is not touched,
so a job run again still changes nothing.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from infra.reports.contact_sheet import contact_sheet, encode_jpeg, locate, pick, tile
from infra.web.html import render_cards, render_image, render_page, render_table
from shards.dataset.dataset import Dataset

if TYPE_CHECKING:
    from infra.reports.rejected_pictures import Glimpse
    from ingest.job.run import JobReport
    from ingest.settings import IngestSettings
    from ingest.source.spec import SourceSpec

KEPT_IMAGES = 24
REJECTED_IMAGES = 24


def job_facts(
    report: JobReport, spec: SourceSpec, settings: IngestSettings, *, stages: Mapping[str, float], raw_bytes: int
) -> dict[str, Any]:
    """The report as one JSON object."""
    dataset = Dataset.open(report.dataset)
    return {
        **report.to_dict(),
        "images_per_second": round(report.items / report.seconds, 2)
        if report.seconds and not report.repeated
        else None,
        "raw_bytes": raw_bytes,
        "stored_bytes": _stored_bytes(dataset, report.job_id),
        "stage_seconds": dict(stages),
        "encoding": dict(dataset.settings.get("encoding", {})),
        "settings": settings.model_dump(mode="json"),
        "spec": spec.model_dump(mode="json", exclude_defaults=True),
    }


def _stored_bytes(dataset: Dataset, job_id: str) -> int:
    sql = "SELECT sum(byte_length)::BIGINT AS stored FROM samples WHERE job_id = ?"
    return int(dataset.query(sql, params=[job_id])["stored"][0].as_py() or 0)


def job_page(dataset: Dataset, facts: Mapping[str, Any], glimpses: Sequence[Glimpse]) -> str:
    """The page, self-contained.

    Args:
        dataset: The dataset.
        facts: `job_facts`.
        glimpses: Rejected pictures to show.
    """
    body = [_figures(facts), _stages(facts), _kept(dataset, facts), _rejected(dataset, facts, glimpses), _rest(facts)]
    title = f"Ingest of {facts['source']}"
    return render_page(title=title, body="".join(body), lead=f"{facts['dataset']}, job {facts['job_id']}")


def _figures(facts: Mapping[str, Any]) -> str:
    cards: list[tuple[object, str]] = [
        (facts["files"], "files = known + read + ignored + pending"),
        (facts["known"], "known: read by an earlier job"),
        (facts["read"], "read"),
        (sum(facts["ignored"].values()), "ignored"),
        (facts["pending"], "pending: could not be read yet"),
        (facts["items"], "items = kept + rejected"),
        (facts["kept"], "kept"),
        (facts["rejected"], "rejected, each with its reason"),
        (facts["shards"] or "–", "shards"),
        (f"{facts['raw_bytes'] / 1e6:,.1f} MB", "raw"),
        (f"{facts['stored_bytes'] / 1e6:,.1f} MB", "stored images"),
    ]
    if facts["images_per_second"] is not None:
        cards += [(f"{facts['seconds']:,.1f} s", "took"), (f"{facts['images_per_second']:,.1f}", "images a second")]
    note = "<p>The job was committed before; nothing was done now.</p>" if facts["repeated"] else ""
    return note + render_cards(cards)


def _stages(facts: Mapping[str, Any]) -> str:
    stages = facts["stage_seconds"]
    if facts["repeated"] or not stages:
        return ""
    total = sum(stages.values()) or 1.0
    rows = [[name, f"{seconds:,.2f}", f"{100 * seconds / total:.0f} %"] for name, seconds in stages.items()]
    return "<h2>Stages</h2>" + render_table(["stage", "seconds", "share"], rows)


def _kept(dataset: Dataset, facts: Mapping[str, Any]) -> str:
    rows = [[name, count] for name, count in facts["modalities"].items()]
    parts = ["<h2>Kept</h2>", render_table(["modality", "images"], rows)]
    for modality, count in facts["modalities"].items():
        picked = pick(dataset, modality, KEPT_IMAGES, job_id=facts["job_id"])
        if picked:
            caption = f"{modality}: {len(picked)} of {count:,} images, as they lie in the shards"
            sheet = contact_sheet(dataset, picked)
            parts.append(render_image(sheet, alt=caption, caption=caption, media_type="image/jpeg"))
    return "".join(parts)


def _rejected(dataset: Dataset, facts: Mapping[str, Any], glimpses: Sequence[Glimpse]) -> str:
    from ingest.picture.quality import REASONS

    rows = [[reason, REASONS.get(reason, ""), count] for reason, count in facts["reasons"].items()]
    parts = ["<h2>Rejected</h2>", render_table(["reason", "what it means", "images"], rows)]
    for reason, count in facts["reasons"].items():
        shown = [glimpse for glimpse in glimpses if glimpse.reason == reason]
        if not shown:
            continue
        caption = f"{reason}: {len(shown)} of {count:,}, read again from the raw data"
        tiles = [glimpse.tile for glimpse in shown]
        if reason == "near_duplicate":
            kept = _kept_tiles(dataset, shown)
            tiles = [part for pair in zip(tiles, kept, strict=True) for part in pair]
            caption += "; each beside the image that is kept instead"
        sheet = encode_jpeg(tile(np.stack(tiles)))
        parts.append(render_image(sheet, alt=caption, caption=caption, media_type="image/jpeg"))
    return "".join(parts)


def _kept_tiles(dataset: Dataset, shown: Sequence[Glimpse]) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """The images that near duplicates are copies of; black where one is gone."""
    from PIL import Image

    from infra.reports.rejected_pictures import tile_of

    found = {}
    for row in locate(dataset, [glimpse.detail for glimpse in shown]):
        data = dataset.store.read_range(row["shard"], row["byte_offset"], row["byte_length"])
        found[row["key"]] = tile_of(_pixels(data, Image))
    black = np.zeros_like(shown[0].tile)
    return [found.get(glimpse.detail, black) for glimpse in shown]


def _pixels(data: bytes, image: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    import io

    return np.asarray(image.open(io.BytesIO(data)).convert("RGB"))


def _rest(facts: Mapping[str, Any]) -> str:
    parts = []
    if facts["volumes"]:
        rows = [[name.replace("_", " "), count] for name, count in facts["volumes"].items()]
        parts.append("<h2>DICOM series</h2>" + render_table(["", "count"], rows))
    if facts["eval_overlap"]:
        rows = [[task, count] for task, count in facts["eval_overlap"].items()]
        parts.append("<h2>In evaluation sets</h2>" + render_table(["task", "images"], rows))
    if facts["ignored"]:
        rows = [[extension, count] for extension, count in sorted(facts["ignored"].items())]
        parts.append("<h2>Ignored</h2>" + render_table(["kind", "files"], rows))
    settings = {name: facts[name] for name in ("settings", "encoding", "spec")}
    text = html.escape(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    parts.append(f"<h2>Settings</h2><pre>{text}</pre>")
    return "".join(parts)
