"""Figures of an ingest job, from its progress and its report."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from infra.metrics.last_job import LastJob

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from ingest.job.report import JobReport, Progress

__all__ = ["IngestFigures"]

_STAGES = ("list", "series", "map", "resolve", "promote", "commit")


class IngestFigures:
    """A watcher of a job that sets metrics; as a context it notes a run that fails.

    Counters count what this process did. The gauges of raw files are of the task's share of the job with what earlier
    attempts read of it, so that their sums over the tasks say how far the job is.

    Args:
        registry: Where they register.
        source: Id of the source.
        file: Figures of an earlier run, from which those of the last job are taken over; None for none.
    """

    def __init__(self, registry: CollectorRegistry, *, source: str, file: Path | None = None) -> None:
        from prometheus_client import Counter, Enum, Gauge

        self._source = source
        self._last = LastJob(registry, source=source, file=file)
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

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Note an error or an interrupt."""
        if kind is not None:
            self._last.fail()

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

    def finish(self, report: JobReport, *, failed: bool) -> None:
        """What the job did in the end: these are the figures to alert on.

        Args:
            report: The job's.
            failed: The command ends with another exit code than 0.
        """
        self._last.end(report, failed=failed)
