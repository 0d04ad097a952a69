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

    Counters count what this process did. The gauges of raw files are of the task's share of the job with what earlier
    attempts read of it, so that their sums over the tasks say how far the job is.

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
        self._files = Gauge(
            "biovfm_ingest_raw_files", "Raw files of this task's share of the job.", ["source"], registry=registry
        )
        self._done = Gauge(
            "biovfm_ingest_raw_files_done", "Those that are read, by earlier attempts too.",
            ["source"], registry=registry,
        )  # fmt: skip
        read = Counter("biovfm_ingest_raw_files_read", "Raw files read by this process.", ["source"], registry=registry)
        self._read = read.labels(source)
        images = Counter("biovfm_ingest_images", "Images met by this process.", ["source"], registry=registry)
        self._images = images.labels(source)
        staged = Counter(
            "biovfm_ingest_items", "Images and broken files of this process, by what became of them.",
            labelnames=["source", "outcome"], registry=registry,
        )  # fmt: skip
        self._kept, self._rejected = staged.labels(source, "kept"), staged.labels(source, "rejected")
        self._seen = {"read": 0, "images": 0, "kept": 0, "rejected": 0}

    def __call__(self, now: Progress) -> None:
        """Another piece of progress; its counts are of all that was done so far."""
        self._stage.state(now.stage)
        if now.stage != "map":
            return
        self._files.labels(self._source).set(now.total)
        self._done.labels(self._source).set(now.done)
        counters = {"read": self._read, "images": self._images, "kept": self._kept, "rejected": self._rejected}
        before = now.earlier
        values = {
            "read": now.done - before.files,
            "images": now.images - before.images,
            "kept": now.kept - before.kept,
            "rejected": now.rejected - before.rejected,
        }
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
