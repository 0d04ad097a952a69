"""Two jobs that commit at the same moment: the later one gives its duplicates up.

A job resolves its duplicates against the index version that it saw last. Should another job have committed between
that look and its own commit, both may hold an image. The rule is that of all exact duplicates, what was committed
first stays: the later job deletes its own rows in one more commit and writes them to the rejects. What was withdrawn
between look and commit it takes out again likewise.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
from pydantic import SecretStr

from ingest.job.unname import unname
from ingest.privacy.tombstones import COLUMNS, PREFIX, WITHDRAWN, Tombstones, tombstones_of
from shards.dataset.dataset import CONCEDED, Dataset
from shards.dataset.removal import remove_samples
from shards.schema import rejects_schema, withdrawn_schema


def concede_duplicates(dataset: Dataset, job: str) -> int:
    """Delete those rows of a committed job whose pixels an earlier job holds.

    Harmless when repeated. The bytes stay in the job's shards; no index row names them.

    Returns:
        Rows deleted.
    """
    lost = _lost_rows(dataset, job)
    if not len(lost):
        return 0
    dataset.reject(f"{job}-conceded", lost.select(rejects_schema().names))
    hashes = ", ".join(f"'{value}'" for value in lost["pixel_sha256"].to_pylist())
    dataset.delete_rows("index", f"job_id = '{job}' AND pixel_sha256 IN ({hashes})")
    return len(lost)


def concede_withdrawn(dataset: Dataset, job: str, secret: SecretStr, *, since: int = -1) -> int:
    """Take out those samples of a committed job that were withdrawn while it ran; its rejects name no others.

    Harmless when repeated.

    Args:
        dataset: The dataset.
        job: The job.
        secret: The user's secret.
        since: The index version that the job compared its images with; -1 where it is not known any more.

    Returns:
        Samples that went.
    """
    tombstones = tombstones_of(dataset, secret)
    if tombstones is None:
        return 0
    num = _take_out(dataset, job, tombstones)
    later = [entry["job_id"] for entry in dataset.jobs() if entry["version"] > since]
    unname(dataset, [name for name in later if name.startswith(PREFIX)])
    return num


def _take_out(dataset: Dataset, job: str, tombstones: Tombstones) -> int:
    columns = ", ".join(("key", "modality", *COLUMNS))
    rows = dataset.query(f"SELECT {columns} FROM samples WHERE job_id = ? ORDER BY key", params=[job])  # noqa: S608
    gone = rows.filter(pa.array(tombstones.of_table(rows), pa.bool_()))
    if not len(gone):
        return 0
    name = f"{PREFIX}{job}"
    rejected = gone.append_column("reason", pa.array([WITHDRAWN] * len(gone)))
    rejected = rejected.append_column("detail", pa.array([""] * len(gone)))
    rejected = rejected.append_column("job_id", pa.array([job] * len(gone)))
    dataset.reject(name, rejected.select(rejects_schema().names))
    dataset.append("withdrawn", name, _note(tombstones.marker.asked("job", job, ""), name))
    summary = {"source": "withdraw", "kept": 0, "rejected": 0, "items": 0}
    return remove_samples(dataset, gone["key"].combine_chunks(), transaction=name, summary=summary).num_samples


def _note(mark: str, name: str) -> pa.Table:
    """The row by which a purge knows that a withdrawal took samples out."""
    row = {"withdrawal": name, "kind": "asked", "mark": mark, "source": "", "reason": "other"}
    row["withdrawn_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    return pa.Table.from_pylist([row], schema=withdrawn_schema())


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
