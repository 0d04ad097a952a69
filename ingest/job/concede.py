"""Two jobs that commit at the same moment: the later one gives its duplicates up.

A job resolves its duplicates against the index version that it saw last. Should another job have committed between
that look and its own commit, both may hold an image. The rule is that of all exact duplicates, what was committed
first stays: the later job deletes its own rows in one more commit and writes them to the rejects.
"""

from __future__ import annotations

import pyarrow as pa

from shards.dataset.dataset import CONCEDED, Dataset
from shards.schema import rejects_schema


def concede_duplicates(dataset: Dataset, job: str) -> int:
    """Delete those rows of a committed job whose pixels an earlier job holds.

    Harmless when repeated. The bytes stay in the job's shards; no index row names them.

    Returns:
        Rows deleted.
    """
    table = dataset.table("index")
    lost = _lost_rows(dataset, job)
    if table is None or not len(lost):
        return 0
    dataset.reject(f"{job}-conceded", lost.select(rejects_schema().names))
    hashes = ", ".join(f"'{value}'" for value in lost["pixel_sha256"].to_pylist())
    table.delete(f"job_id = '{job}' AND pixel_sha256 IN ({hashes})")
    return len(lost)


def _lost_rows(dataset: Dataset, job: str) -> pa.Table:
    names = [entry["job_id"] for entry in dataset.jobs()]
    earlier = names[: names.index(job)] if job in names else []
    if not earlier:
        return pa.table({})
    return dataset.query(
        "SELECT source, modality, raw_path, raw_frame, 'duplicate' AS reason, "
        "? AS detail, job_id, pixel_sha256 FROM samples "
        "WHERE job_id = ? AND pixel_sha256 IN (SELECT pixel_sha256 FROM samples JOIN earlier USING (job_id)) "
        "ORDER BY pixel_sha256",
        params=[CONCEDED, job],
        earlier=pa.table({"job_id": pa.array(earlier, pa.string())}),
    )
