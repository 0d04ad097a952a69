"""The report: what was ingested, what it looks like, what was rejected, and what training made of it."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.reports.contact_sheet import contact_sheet, pick
from infra.reports.probe import published_section
from infra.reports.training import training_section
from infra.web.html import render_cards, render_image, render_page, render_table
from shards.dataset.dataset import Dataset
from shards.dataset.summary import Summary, summarise
from shards.subset.finding import find
from shards.subset.keys import keys_of
from shards.subset.lock import Lock

SHEET_IMAGES = 36


def build_report(
    dataset: Dataset,
    *,
    lock: Path | None = None,
    run: Path | None = None,
    probes: Sequence[dict[str, Any]] = (),
    stream: dict[str, Any] | None = None,
    notes: Sequence[str] = (),
    title: str = "Dataset report",
) -> str:
    """The page, self-contained.

    Args:
        dataset: The dataset.
        lock: A lock file to describe.
        run: A run folder of `biovfm pretrain`.
        probes: Rows of the probe table: `model, task, auc, low, high, acc`.
        stream: The figures of `biovfm stream --bench --json`.
        notes: Plain sentences for the top of the page.
        title: Title of the page.
    """
    summary = summarise(dataset)
    sections = [
        "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        _overview(summary),
        _pictures(dataset, summary),
        _sources(summary),
        _subset(lock, dataset),
        _stream(stream),
        training_section(run),
        _probes(probes),
    ]
    return render_page(title=title, body="".join(sections), lead=f"{summary.url}, version {summary.version}")


def _overview(summary: Summary) -> str:
    rejected = sum(row["images"] for row in summary.rejects)
    cards = render_cards(
        [
            (summary.num_samples, "images"),
            (len(summary.by_modality), "modalities"),
            (len({row["source"] for row in summary.by_source}), "sources"),
            (summary.num_shards, "shards"),
            (f"{summary.num_bytes / 1e6:,.1f} MB", "compressed images"),
            (rejected, "rejected, each with its reason"),
        ]
    )
    rows = [
        [row["modality"], row["samples"], row["sources"], row["groups"], row["bytes"]] for row in summary.by_modality
    ]
    return cards + "<h2>Modalities</h2>" + render_table(["modality", "images", "sources", "groups", "bytes"], rows)


def _pictures(dataset: Dataset, summary: Summary) -> str:
    parts = ["<h2>What was ingested</h2>"]
    for row in summary.by_modality:
        picked = pick(dataset, row["modality"], SHEET_IMAGES)
        caption = f"{row['modality']}: {len(picked)} of {row['samples']:,} images, as they lie in the shards"
        sheet = contact_sheet(dataset, picked)
        parts += [
            f"<h3>{html.escape(row['modality'])}</h3>",
            render_image(sheet, alt=caption, caption=caption, media_type="image/jpeg"),
        ]
    return "".join(parts)


def _sources(summary: Summary) -> str:
    jobs = [
        [*(job.get(name, "") for name in ("source", "files", "items", "kept", "rejected")), job["version"]]
        for job in summary.jobs
    ]
    sources = [[row["source"], row["modality"], row["samples"], row["licence"]] for row in summary.by_source]
    from ingest.picture.quality import REASONS

    rejects = [[row["source"], row["reason"], REASONS.get(row["reason"], ""), row["images"]] for row in summary.rejects]
    counts: Counter[str] = Counter()
    for row in summary.rejects:
        counts[row["reason"]] += row["images"]
    reasons = [[reason, REASONS.get(reason, ""), count] for reason, count in counts.most_common()]
    return (
        "<h2>Sources</h2>"
        + render_table(["source", "modality", "images", "licence"], sources)
        + "<h2>Ingest jobs</h2><p>items = kept + rejected</p>"
        + render_table(["source", "files", "items", "kept", "rejected", "index version"], jobs)
        + "<h2>Rejected, by reason</h2>"
        + render_table(["reason", "what it means", "images"], reasons)
        + "<h3>By source</h3>"
        + render_table(["source", "reason", "what it means", "images"], rejects)
    )


def _subset(lock: Path | None, dataset: Dataset) -> str:
    if lock is None:
        return ""
    pinned = Lock.read(lock)
    found = find(pinned, dataset, keys=keys_of(pinned, lock))
    order = {True: "the pinned one", False: "another: the shards are packed otherwise", None: "not pinned"}
    facts = [
        ["lock file", lock.name],
        ["index version", str(pinned.index_version)],
        ["selection", pinned.selection.tag_predicate()],
        ["samples", f"{pinned.num_samples:,} in {pinned.num_shards:,} shards"],
        ["digest", pinned.digest],
        ["found", f"in {found.dataset.url}, version {found.version}"],
        ["order", order[found.same_order]],
    ]
    return "<h2>Pinned subset</h2>" + render_table(["", ""], facts)


def _stream(figures: dict[str, Any] | None) -> str:
    if not figures:
        return ""
    wanted = {
        "images_per_second": "images a second",
        "cpu_seconds_per_1000_images": "CPU s per 1000 images",
        "first_batch_seconds": "s to the first batch",
        "peak_memory_mb": "MB peak memory",
    }
    cards = [(figures[name], label) for name, label in wanted.items() if figures.get(name) is not None]
    return "<h2>Streaming</h2>" + render_cards(cards)


def _probes(probes: Sequence[dict[str, Any]]) -> str:
    if not probes:
        return ""
    rows = [
        [row["model"], row["task"], round(row["auc"], 4), f"{row['low']:.3f} – {row['high']:.3f}", round(row["acc"], 4)]
        for row in probes
    ]
    table = render_table(["model", "task", "AUC", "95 % interval", "accuracy"], rows)
    tasks = [str(row["task"]).split(" ")[0] for row in probes]
    return f"<h2>Probes</h2>{table}{published_section(tasks)}"
