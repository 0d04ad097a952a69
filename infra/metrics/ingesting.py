"""Figures of an ingest job, from its progress and its report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ingest.job.report import JobReport, Progress

__all__ = ["IngestFigures"]

_STAGES = ("list", "series", "map", "resolve", "promote", "commit")


class IngestFigures:
    """A watcher of a job that sets metrics.

    Args:
        registry: Where they register.
        source: Id of the source.
    """

    def __init__(self, registry: CollectorRegistry, *, source: str) -> None:
        from prometheus_client import Counter, Enum, Gauge

        self._source = source
        self._registry = registry
        stage = Enum("biovfm_ingest_stage", "What is being done.", ["source"], states=_STAGES, registry=registry)
        self._stage = stage.labels(source)
        files = Gauge("biovfm_ingest_raw_files", "Raw files of the job.", ["source"], registry=registry)
        self._files = files.labels(source)
        read = Counter("biovfm_ingest_raw_files_read", "Raw files read.", ["source"], registry=registry)
        self._read = read.labels(source)
        images = Counter("biovfm_ingest_images", "Images met.", ["source"], registry=registry)
        self._images = images.labels(source)
        staged = Counter(
            "biovfm_ingest_items", "Images and broken files, by what became of them.",
            labelnames=["source", "outcome"], registry=registry,
        )  # fmt: skip
        self._kept, self._rejected = staged.labels(source, "kept"), staged.labels(source, "rejected")
        self._seen = {"read": 0, "images": 0, "kept": 0, "rejected": 0}

    def __call__(self, now: Progress) -> None:
        """Another piece of progress; counts of a stage are of all that was done so far."""
        self._stage.state(now.stage)
        if now.stage != "map":
            return
        self._files.set(now.total)
        counters = {"read": self._read, "images": self._images, "kept": self._kept, "rejected": self._rejected}
        values = {"read": now.done, "images": now.images, "kept": now.kept, "rejected": now.rejected}
        for name, counter in counters.items():
            counter.inc(max(values[name] - self._seen[name], 0))
            self._seen[name] = max(values[name], self._seen[name])

    def finish(self, report: JobReport) -> None:
        """What the job did in the end: these are the figures to alert on."""
        from prometheus_client import Gauge

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"biovfm_ingest_{name}", text, ["source"], registry=self._registry).labels(self._source)

        gauge("last_kept_images", "Images that the dataset gained by the last job.").set(report.kept)
        gauge("last_pending_raw_files", "Raw files that the last job could not read.").set(report.pending)
        reasons = Gauge(
            "biovfm_ingest_last_rejected_items", "Rejects of the last job by reason.",
            ["source", "reason"], registry=self._registry,
        )  # fmt: skip
        for reason, count in report.reasons.items():
            reasons.labels(self._source, reason).set(count)
        if not report.unfinished and not report.failed and not report.pending:
            gauge("last_success_timestamp_seconds", "When a job of the source last ended well.").set(time.time())
