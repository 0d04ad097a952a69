"""The committed jobs of a source, and the attempts that one consists of.

A job that left files pending, or some of whose rejects are to be tried again, is continued by further attempts: jobs of
the same raw data and rules whose ids end in `-2`, `-3` … (`-retry2` … for rejects). What is counted is counted over all
attempts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa

from ingest.job.identity import job_id
from ingest.job.list import Listing
from ingest.job.sift import Mode, frames_by_path
from ingest.staging.context import Retry
from shards.dataset.dataset import Dataset

_ATTEMPT: Final = re.compile(r"(?<=-[0-9a-f]{16})-(retry)?\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """The committed attempts of a job.

    Attributes:
        base: The job's id, that of the first attempt.
        jobs: Id and summary of each attempt, oldest first.
        overtaken: Whether a later job has read another state of the source by the same rules.
    """

    base: str
    jobs: Sequence[Mapping[str, Any]] = ()
    overtaken: bool = False

    @property
    def ids(self) -> list[str]:
        """The ids of the attempts."""
        return [str(job["job_id"]) for job in self.jobs]

    @property
    def is_complete(self) -> bool:
        """Whether the job is committed, no raw file of it is pending, and what it read is what the dataset holds."""
        return bool(self.jobs) and not self.overtaken and not self.jobs[-1].get("pending")

    def total(self, name: str) -> int:
        """A count of the summaries, over all attempts."""
        return sum(int(job.get(name, 0)) for job in self.jobs)

    def covers(self, listing: Listing, mode: Mode) -> bool:
        """Whether the last attempt saw the files as they are now and left nothing that `mode` asks for."""
        last = self.jobs[-1] if self.jobs else {}
        unpruned = mode.prune and last.get("vanished") != 0
        return last.get("stamps") in (None, listing.stamps) and not unpruned and not mode.rehash

    def next_id(self, *, retry: bool = False) -> str:
        """The id of another attempt."""
        if not self.jobs:
            return self.base
        return f"{self.base}-{'retry' if retry else ''}{len(self.jobs) + 1}"


def attempts_at(dataset: Dataset, source: str, rules: str, listing: Listing) -> Attempts:
    """The committed attempts of the last job that read these raw files by these rules.

    The id of a source's first job follows from rules and listing. A later one may meet the same listing again, after
    files came and went; the summaries of the jobs tell which was the last.
    """
    jobs = dataset.jobs()
    ours = [job for job in jobs if (job.get("source"), job.get("rules")) == (source, rules)]
    bases = [_ATTEMPT.sub("", job["job_id"]) for job in ours if job.get("listing") == listing.digest]
    attempts = attempts_of(dataset, bases[-1] if bases else job_id(source, rules, listing.digest))
    last = max((int(job["version"]) for job in ours), default=-1)
    return replace(attempts, overtaken=bool(attempts.jobs) and int(attempts.jobs[-1]["version"]) < last)


def attempts_for(
    dataset: Dataset, found: Attempts, listing: Listing, *, source: str, rules: str, mode: Mode
) -> Attempts:
    """The attempts that the next run belongs to: those found where it continues them, else the first of a new job.

    What a job does with a source that is known follows from its files, the jobs before it and what was taken out
    since; so does its id, by which an interrupted run is found again.
    """
    jobs = dataset.jobs()
    earlier = [job["job_id"] for job in jobs if job.get("source") == source]
    if not earlier or (found.jobs and not found.overtaken and not found.is_complete and found.covers(listing, mode)):
        return found
    removals = [job["job_id"] for job in jobs if job.get("removed")]
    state = [listing.digest, listing.stamps, earlier[-1], *removals[-1:], str(mode)]
    return Attempts(base=job_id(source, rules, " ".join(state)))


def attempts_of(dataset: Dataset, base: str) -> Attempts:
    """The committed attempts of a job."""
    pattern = re.compile(rf"{re.escape(base)}(-(retry)?\d+)?")
    return Attempts(base=base, jobs=[job for job in dataset.jobs() if pattern.fullmatch(job["job_id"])])


def rejects_to_retry(dataset: Dataset, attempts: Attempts, reason: str) -> Retry:
    """The rejects of a job, of one reason or (empty) of all."""
    ids = pa.table({"job_id": pa.array(attempts.ids, pa.string())})
    wanted = dataset.query(
        "SELECT raw_path, raw_frame FROM rejects WHERE job_id IN (SELECT job_id FROM ids) AND (reason = $1 OR $1 = '')",
        params=[reason],
        ids=ids,
    )
    kept = dataset.query(
        "SELECT raw_path, raw_frame FROM samples WHERE job_id IN (SELECT job_id FROM ids) "
        "AND raw_path IN (SELECT raw_path FROM wanted)",
        ids=ids,
        wanted=wanted,
    )
    return Retry(wanted=frames_by_path(wanted), kept=frames_by_path(kept))


def drop_retried(dataset: Dataset, attempts: Attempts) -> None:
    """Remove the rejects that the last attempt, a retry, has tried again; harmless when repeated."""
    last = attempts.jobs[-1] if attempts.jobs else {}
    if "retried" not in last:
        return
    earlier = ", ".join(f"'{job}'" for job in attempts.ids[:-1])
    reason = f" AND reason = {_literal(last['retried'])}" if last["retried"] else ""
    read = dataset.query(
        "SELECT DISTINCT raw_path FROM raw_files WHERE job_id = ? AND state = 'read' AND raw_path IN "  # noqa: S608
        f"(SELECT raw_path FROM rejects WHERE job_id IN ({earlier}){reason})",
        params=[last["job_id"]],
    )["raw_path"].to_pylist()
    for start in range(0, len(read), 1000):
        paths = ", ".join(_literal(path) for path in read[start : start + 1000])
        dataset.delete_rows("rejects", f"job_id IN ({earlier}){reason} AND raw_path IN ({paths})")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
