"""What a dataset knows of a source already: its jobs, and the raw files that they have read.

A job that left files pending, or some of whose rejects are to be tried again, is continued by further attempts: jobs of
the same raw data and rules whose ids end in `-2`, `-3` … (`-retry2` … for rejects). What is counted is counted over all
attempts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.job.unit_writer import stamp_of
from ingest.privacy.pseudonyms import Pseudonyms
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem
from ingest.staging.context import Retry
from shards.dataset.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """The committed attempts of a job.

    Attributes:
        base: The job's id, that of the first attempt.
        jobs: Id and summary of each attempt, oldest first.
    """

    base: str
    jobs: Sequence[Mapping[str, Any]] = ()

    @property
    def ids(self) -> list[str]:
        """The ids of the attempts."""
        return [str(job["job_id"]) for job in self.jobs]

    @property
    def is_complete(self) -> bool:
        """Whether the job is committed and no raw file of it is pending."""
        return bool(self.jobs) and not self.jobs[-1].get("pending")

    def next_id(self, *, retry: bool = False) -> str:
        """The id of another attempt."""
        if not self.jobs:
            return self.base
        return f"{self.base}-{'retry' if retry else ''}{len(self.jobs) + 1}"


def attempts_of(dataset: Dataset, base: str) -> Attempts:
    """The committed attempts of a job."""
    pattern = re.compile(rf"{re.escape(base)}(-(retry)?\d+)?")
    return Attempts(base=base, jobs=[job for job in dataset.jobs() if pattern.fullmatch(job["job_id"])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """The raw files of a listing, by what the dataset knows of them.

    Attributes:
        items: Those to read: new ones, changed ones, and those that could not be read before.
        known: How many are read already, by the same rules.
        changed: How many of `items` are read already, but were another file then.
    """

    items: Sequence[RawItem]
    known: int = 0
    changed: int = 0


def sift(
    dataset: Dataset, items: Sequence[RawItem], names: Pseudonyms, *, source: str, rules: str, by_name: bool = False
) -> Sifted:
    """Leave out the raw files that an earlier job has read.

    Memory: 16 bytes per known file.

    Args:
        dataset: The dataset.
        items: All raw files.
        names: How their paths are written in the tables.
        source: The source's id.
        rules: Only what was read by these rules is known.
        by_name: Take also the raw files of the source's samples as known, whatever made them.
    """
    found = _read_by_jobs(dataset, source, rules)
    named: list[str] = []
    if by_name:
        sql = "SELECT DISTINCT raw_path FROM samples WHERE source = ?"
        named = dataset.query(sql, params=[source])["raw_path"].to_pylist()
    if not len(found) and not named:
        return Sifted(items=items)
    rows = list(zip(*(found[name].to_pylist() for name in ("raw_path", "size", "stamp")), strict=True))
    files, paths = _hashes(rows), _hashes((path, 0, "") for path, *_ in rows)
    by_path = _hashes((path, 0, "") for path in named)
    counts = {"known": 0, "changed": 0}

    def unknown() -> Iterator[RawItem]:
        for item in items:
            path = names.raw_path(item)
            if _has(files, (path, item.size, stamp_of(item))) or _has(by_path, (path, 0, "")):
                counts["known"] += 1
                continue
            counts["changed"] += _has(paths, (path, 0, ""))
            yield item

    left = Compact(unknown())
    return Sifted(items=left, known=counts["known"], changed=counts["changed"])


def _read_by_jobs(dataset: Dataset, source: str, rules: str) -> pa.Table:
    """The raw files that committed jobs have read.

    A job that ended between the commit of its raw files and that of its samples has read nothing that is there.
    """
    where = "FROM raw_files WHERE source = ? AND rules = ? AND state = 'read'"
    jobs = dataset.query(f"SELECT DISTINCT job_id {where}", params=[source, rules])["job_id"].to_pylist()
    ids = pa.table({"job_id": pa.array(dataset.committed(jobs), pa.string())})
    return dataset.query(
        f"SELECT raw_path, size, stamp {where} AND job_id IN (SELECT job_id FROM ids)",  # noqa: S608 - our own text
        params=[source, rules],
        ids=ids,
    )


def _hashes(rows: Iterable[tuple[str, int, str]]) -> NDArray[np.uint64]:
    return np.unique(np.fromiter((_hash(row) for row in rows), np.uint64))


def _hash(row: tuple[str, int, str]) -> int:
    return int.from_bytes(blake2b("\0".join(map(str, row)).encode(), digest_size=8).digest(), "little")


def _has(hashes: NDArray[np.uint64], row: tuple[str, int, str]) -> bool:
    wanted = np.uint64(_hash(row))
    at = int(np.searchsorted(hashes, wanted))
    return at < len(hashes) and bool(hashes[at] == wanted)


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
    return Retry(wanted=_frames(wanted), kept=_frames(kept))


def _frames(rows: pa.Table) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for path, frame in zip(rows["raw_path"].to_pylist(), rows["raw_frame"].to_pylist(), strict=True):
        found.setdefault(path, set()).add(frame)
    return {path: frozenset(frames) for path, frames in found.items()}


def drop_retried(dataset: Dataset, attempts: Attempts) -> None:
    """Remove the rejects that the last attempt, a retry, has tried again; harmless when repeated."""
    last = attempts.jobs[-1] if attempts.jobs else {}
    table = dataset.table("rejects")
    if table is None or "retried" not in last:
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
        table.delete(f"job_id IN ({earlier}){reason} AND raw_path IN ({paths})")


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
