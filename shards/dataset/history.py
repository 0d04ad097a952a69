"""What happened to a dataset: its versions, the jobs that made them, and how large it was after each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from shards.dataset.dataset import Dataset
from shards.errors import SampleIndexError

_WORDS: Final[Mapping[str, str]] = {
    "read": "files read",
    "kept": "samples added",
    "rejected": "rejected",
    "changed": "files changed",
    "pruned": "vanished files pruned",
    "revived": "duplicates revived",
    "removed": "samples removed",
    "compacted_shards": "shards compacted",
    "compacted_files": "table files compacted",
    "pending": "files pending",
    "vanished": "files vanished",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of the index.

    Attributes:
        version: Its number.
        committed: When, UTC, as ISO 8601.
        operation: What the commit did: `WRITE`, `DELETE` and so on.
        job_id: The job that made it; empty where none did.
        source: Source of the job.
        what: What it did, in words.
        num_samples: Samples after it; None where its files are gone.
        index_bytes: Bytes of the index files after it; None likewise.
    """

    version: int
    committed: str
    operation: str
    job_id: str
    source: str
    what: str
    num_samples: int | None
    index_bytes: int | None


def history(dataset: Dataset) -> list[Version]:
    """The versions of a dataset, oldest first; empty where nothing was committed yet."""
    jobs = {job["version"]: job for job in dataset.jobs()}
    found = []
    for entry in reversed(dataset.commits("index")):
        number = int(entry["version"])
        size, num = _size(dataset, number)
        job = jobs.get(number, {})
        found.append(
            Version(
                version=number,
                committed=datetime.fromtimestamp(entry["timestamp"] / 1000, UTC).isoformat(timespec="seconds"),
                operation=str(entry.get("operation", "")),
                job_id=str(job.get("job_id", "")),
                source=str(job.get("source", "")),
                what=told(job, str(entry.get("operation", ""))),
                num_samples=num,
                index_bytes=size,
            )
        )
    return found


def told(job: Mapping[str, Any], operation: str) -> str:
    """What a commit did, in words.

    Args:
        job: Its summary; empty where it was no job.
        operation: What the table's log calls it.
    """
    if not job:
        return "rows that another job holds were given up" if operation == "DELETE" else operation.lower()
    if job.get("source") == "withdraw":
        return f"{int(job.get('removed', 0)):,} samples withdrawn"
    counts = {name: value for name, value in job.items() if isinstance(value, int) and value}
    parts = [f"{counts[name]:,} {word}" for name, word in _WORDS.items() if name in counts]
    return ", ".join(parts) or "nothing new"


def _size(dataset: Dataset, version: int) -> tuple[int | None, int | None]:
    import pyarrow as pa

    try:
        table = dataset.samples_table(version)
    except SampleIndexError:
        return None, None
    actions = pa.table(table.get_add_actions(flatten=True))
    return sum(actions["size_bytes"].to_pylist()), sum(actions["num_records"].to_pylist())
