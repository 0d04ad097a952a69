"""What a job tells of itself."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.job.report import JobReport, settled_counts
from ingest.staging.report import UnitReport
from ingest.staging.resolution import WITHHELD, Resolution


def unit(index: int, kept: int, rejected: dict[str, int]) -> UnitReport:
    items = kept + sum(rejected.values())
    return UnitReport(index=index, files=items, items=items, kept=kept, rejected=rejected, shards={})


def test_dropped_samples_are_no_longer_kept_and_withheld_ones_are_no_rejects() -> None:
    drops = {0: {1: ("duplicate", "x"), 2: WITHHELD}, 1: {0: ("near_duplicate", "y")}}
    units = [unit(0, 5, {"blank": 2}), unit(1, 3, {"blank": 1, "duplicate": 1})]
    kept, reasons = settled_counts(units, Resolution(version=0, drops=drops))
    assert kept == 5
    assert reasons == {"blank": 3, "duplicate": 2, "near_duplicate": 1}


@pytest.mark.parametrize(
    ("counts", "failed"),
    [
        ({}, True),
        ({"kept": 1}, False),
        ({"known": 1}, False),
        ({"reasons": {"blank": 3}}, True),
        ({"reasons": {"duplicate": 3}}, False),
        ({"unfinished": True}, False),
    ],
)
def test_a_job_failed_where_nothing_of_its_data_is_there(counts: dict[str, Any], *, failed: bool) -> None:
    report = JobReport(job_id="j", source="s", dataset="d", version=0, **counts)
    assert report.failed is failed
    assert report.to_dict().items() >= {"job_id": "j", **counts}.items()
