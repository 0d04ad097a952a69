"""How many images the jobs of a dataset did not take, by source and reason."""

from __future__ import annotations

from typing import Final

from shards.dataset.dataset import Dataset

LEFT_OUT: Final = "left_out"
"""What a job that copies samples says of the jobs that made them, as `left_out` gives it: it copies no rejects."""


def left_out(dataset: Dataset, version: int) -> dict[str, dict[str, int]]:
    """Count the rejects of the jobs that an index version follows from, as far as later jobs have left them.

    Args:
        dataset: The dataset.
        version: Index version.

    Returns:
        Source → reason → images.

    Raises:
        SampleIndexError: A table is damaged.
        StoreError: The storage failed.
    """
    jobs = [job for job in dataset.jobs() if job["version"] <= version]
    copied: dict[str, dict[str, int]] = {}
    for job in jobs:
        for source, reasons in job.get(LEFT_OUT, {}).items():
            most = copied.setdefault(source, {})
            # two copies from one dataset may speak of the same jobs
            most.update({reason: max(num, most.get(reason, 0)) for reason, num in reasons.items()})
    rows = dataset.query(
        """SELECT source, reason, count(*) AS num FROM rejects WHERE list_contains($1, job_id)
        GROUP BY 1, 2 ORDER BY 1, 2""",
        params=[[job["job_id"] for job in jobs]],
    )
    for row in rows.to_pylist():
        reasons = copied.setdefault(row["source"], {})
        reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["num"]
    return copied
