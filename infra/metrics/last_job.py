"""How the last job of a source ended: what to alert on, kept from run to run in the file of figures.

A run that fails has no counts to tell. It leaves those of the last job as they are and adds when it failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.samples import Sample

    from ingest.job.report import JobReport

__all__ = ["LastJob"]

_PREFIX: Final = "biovfm_ingest_last_"
_TEXTS: Final = {
    "kept_images": "Images that the dataset gained by the last job that came to its end.",
    "pending_raw_files": "Raw files that this job could not read.",
    "rejected_items": "Rejects of this job by reason.",
    "success_timestamp_seconds": "When a job of the source last ended well, with every raw file read.",
    "failure_timestamp_seconds": "When a run for the source last failed or was interrupted.",
}
"""Name without the prefix → help."""


class LastJob:
    """Gauges of the last job of each source.

    Args:
        registry: Where they register.
        source: Id of the source of this job.
        file: Figures of an earlier run, which are taken over, other sources' too; None for none.
    """

    def __init__(self, registry: CollectorRegistry, *, source: str, file: Path | None) -> None:
        from prometheus_client import Gauge

        self._source = source
        self._reasons: set[str] = set()
        self._gauges = {}
        for name, text in _TEXTS.items():
            labels = ["source", "reason"] if name == "rejected_items" else ["source"]
            self._gauges[name] = Gauge(_PREFIX + name, text, labels, registry=registry)
        for sample in _samples(file) if file is not None else ():
            self._take_over(sample)

    def end(self, report: JobReport, *, failed: bool) -> None:
        """The job has come to its end; where tasks share it, the one that commits tells.

        Args:
            report: What it did.
            failed: The command ends with another exit code than 0.
        """
        if report.unfinished:
            return
        self._gauges["kept_images"].labels(self._source).set(report.kept)
        self._gauges["pending_raw_files"].labels(self._source).set(report.pending)
        for reason in self._reasons - report.reasons.keys():
            self._gauges["rejected_items"].remove(self._source, reason)
        for reason, count in report.reasons.items():
            self._gauges["rejected_items"].labels(self._source, reason).set(count)
        self._reasons = {*report.reasons}
        if failed:
            self.fail()
        elif not report.pending:
            self._gauges["success_timestamp_seconds"].labels(self._source).set(time.time())

    def fail(self) -> None:
        """The run has failed, or was interrupted."""
        self._gauges["failure_timestamp_seconds"].labels(self._source).set(time.time())

    def _take_over(self, sample: Sample) -> None:
        gauge = self._gauges.get(sample.name.removeprefix(_PREFIX))
        if gauge is None:
            return
        with suppress(ValueError):  # it has other labels than ours
            gauge.labels(**sample.labels).set(sample.value)
            if "reason" in sample.labels and sample.labels["source"] == self._source:
                self._reasons.add(sample.labels["reason"])


def _samples(path: Path) -> Iterator[Sample]:
    """The figures of last jobs in a file, where it is one of ours; whatever else lies there is written over."""
    from prometheus_client.parser import text_string_to_metric_families

    with suppress(OSError, ValueError):
        for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
            yield from (sample for sample in family.samples if sample.name.startswith(_PREFIX))
