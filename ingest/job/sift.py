"""The raw files of a listing by what the dataset knows of them: which to read, and which have changed or vanished.

A file is known by its published raw path, its size and its stamp (`ingest.privacy.pseudonyms`). The last job that read
it by the same rules is what counts: a file that changed and changed back is another file each time. A stamp that is
not known on one side (a release before stamps, a store without times) decides nothing.

Memory: 21 bytes per known file, and while they are read as much again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.privacy.pseudonyms import Pseudonyms
from ingest.raw.compact import Compact
from ingest.raw.items import RawItem
from ingest.raw.names import archive_kind
from ingest.staging.context import Retry
from shards.dataset.dataset import Dataset
from shards.errors import SourceError

_BATCH: Final = 4096
_KNOWN_SQL: Final = (
    "FROM raw_files WHERE source = ? AND rules = ? AND state = 'read' AND job_id IN (SELECT job_id FROM ids)"
)
_HASH: Final = "[0-9a-f]{16}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """What a job does with raw files that are known or vanished.

    Attributes:
        prune: Drop the samples of files that are not there any more.
        rehash: Read known files again, whatever size and stamp say, and replace what comes out otherwise.
    """

    prune: bool = False
    rehash: bool = False


PLAIN: Final = Mode()
"""Known files are left alone, vanished ones are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted:
    """The raw files of a listing, by what the dataset knows of them.

    Attributes:
        items: Those to read: new ones, changed ones, those that could not be read before, and those of which a
            duplicate is to be revived.
        known: How many are read already, by the same rules, and are not read again.
        changed: How many of `items` are read already, but were another file then.
        vanished: How many files an earlier job has read that are not listed any more.
        again: Raw paths of the files that are read again as a whole: what came of them before is replaced.
        gone: Raw paths of the vanished files whose samples are to be dropped.
        revive: Rejected duplicates whose original goes or went: only these frames of their files are taken.
        blind: Whether a folder or an archive cannot be listed now, so that nothing is known of what vanished.
    """

    items: Sequence[RawItem]
    known: int = 0
    changed: int = 0
    vanished: int = 0
    again: Sequence[str] = ()
    gone: Sequence[str] = ()
    revive: Retry = field(default_factory=Retry)
    blind: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.items and not self.gone


def sift(
    dataset: Dataset,
    items: Sequence[RawItem],
    names: Pseudonyms,
    *,
    source: str,
    rules: str,
    mode: Mode = PLAIN,
    by_name: bool = False,
) -> Sifted:
    """Leave out the raw files that an earlier job has read.

    Args:
        dataset: The dataset.
        items: All raw files.
        names: How their paths and stamps are written in the tables.
        source: The source's id.
        rules: Only what was read by these rules is known.
        mode: What to do with files that are known or vanished.
        by_name: Take also the raw files of the source's samples as known, whatever made them.

    Raises:
        SourceError: Something is to be pruned and a folder or an archive cannot be listed now.
    """
    known = KnownFiles.of(dataset, source, rules)
    named = _samples_by_name(dataset, source) if by_name else np.empty(0, np.uint64)
    if not len(known) and not len(named):
        return Sifted(items=items)
    counts = {"known": 0, "changed": 0}
    again: list[str] = []
    blind = False

    def unknown() -> Iterator[RawItem]:
        nonlocal blind
        for some in _batches(items):
            paths = [names.raw_path(item) for item in some]
            hashes = _hashes(paths)
            listed = np.isin(hashes, named)
            places = known.find(hashes)
            for item, path, place, is_named in zip(some, paths, places.tolist(), listed.tolist(), strict=True):
                blind = blind or _is_blind(item)
                same = place < 0 or known.is_same(place, item.size, names.stamp(item))
                if (place >= 0 and same and not mode.rehash) or (place < 0 and is_named):
                    counts["known"] += 1
                    continue
                counts["changed"] += not same
                if place >= 0:
                    again.append(path)
                yield item

    left: Sequence[RawItem] = Compact(unknown())
    vanished = 0 if blind else known.num_unseen
    gone = known.unseen_paths(dataset, source, rules) if mode.prune and vanished else []
    if mode.prune and blind:
        raise SourceError(
            "a folder or an archive cannot be listed now, so nothing can be said of files that vanished",
            hint="run the command again when it can be listed, or without --prune",
        )
    revive = rejects_to_revive(dataset, source, [*again, *gone])
    if revive.wanted:
        wanted = set(again) | revive.wanted.keys()
        first = len(left)
        fresh = _hashes([names.raw_path(item) for item in left])
        left = Compact(_with_revived(items, names, wanted, fresh))
        counts["known"] -= len(left) - first
    return Sifted(
        items=left,
        known=counts["known"],
        changed=counts["changed"],
        vanished=vanished,
        again=again,
        gone=gone,
        revive=revive,
        blind=blind,
    )


def _with_revived(
    items: Sequence[RawItem], names: Pseudonyms, wanted: set[str], fresh: NDArray[np.uint64]
) -> Iterator[RawItem]:
    """The files to read and those of revived duplicates, in the order of the listing."""
    for some in _batches(items):
        paths = [names.raw_path(item) for item in some]
        for item, path, is_fresh in zip(some, paths, np.isin(_hashes(paths), fresh).tolist(), strict=True):
            if is_fresh or path in wanted:
                yield item


def _is_blind(item: RawItem) -> bool:
    """Whether an item stands for files that could not be listed."""
    return item.kind == "unavailable" or (item.kind == "reject" and not item.member and bool(archive_kind(item.path)))


class KnownFiles:
    """The raw files that committed jobs have read by certain rules.

    Use `KnownFiles.of`.
    """

    def __init__(self, paths: NDArray[np.uint64], sizes: NDArray[np.int64], stamps: NDArray[np.uint32]) -> None:
        self._paths = paths
        self._sizes = sizes
        self._stamps = stamps
        self._seen = np.zeros(len(paths), bool)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._paths)

    @classmethod
    def of(cls, dataset: Dataset, source: str, rules: str) -> KnownFiles:
        """Read the table of raw files.

        A job that ended between the commit of its raw files and that of its samples has read nothing that is there.
        """
        ids = _committed(dataset, source, rules)
        number = {job: order for order, job in enumerate(ids)}
        paths, sizes, stamps, orders = [_NONE], [np.empty(0, np.int64)], [np.empty(0, np.uint32)], [_NONE.astype("u4")]
        if not ids:
            return cls(paths[0], sizes[0], stamps[0])
        with dataset.database("raw_files", ids=_table(job_id=ids)) as database:
            rows = database.sql(f"SELECT raw_path, size, stamp, job_id {_KNOWN_SQL}", params=[source, rules])
            for batch in rows.to_arrow_reader(_BATCH):
                paths.append(_hashes(batch["raw_path"].to_pylist()))
                sizes.append(batch["size"].to_numpy(zero_copy_only=False).astype(np.int64))
                stamps.append(np.fromiter(map(_stamp, batch["stamp"].to_pylist()), np.uint32))
                orders.append(np.fromiter((number[job] for job in batch["job_id"].to_pylist()), np.uint32))
        path, size, stamp = np.concatenate(paths), np.concatenate(sizes), np.concatenate(stamps)
        order = np.lexsort((np.concatenate(orders), path))
        path = path[order]
        last = np.append(path[1:] != path[:-1], True)[: len(path)]  # the latest record of each path
        return cls(path[last], size[order][last], stamp[order][last])

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Places of some paths, by their hashes, -1 where they are not known; they count as seen from now on."""
        if not len(self):
            return np.full(len(hashes), -1, np.int64)
        at = np.minimum(np.searchsorted(self._paths, hashes), len(self) - 1)
        there = self._paths[at] == hashes
        self._seen[at[there]] = True
        return np.where(there, at, -1)

    def is_same(self, place: int, size: int, stamp: str) -> bool:
        """Whether a file has the size and the stamp that it had."""
        before, now = int(self._stamps[place]), _stamp(stamp)
        return int(self._sizes[place]) == size and (before == now or not before or not now)

    @property
    def num_unseen(self) -> int:
        """How many were not found so far."""
        return len(self) - int(np.count_nonzero(self._seen))

    def unseen_paths(self, dataset: Dataset, source: str, rules: str) -> list[str]:
        """The raw paths of those that were not found."""
        unseen = self._paths[~self._seen]
        found: set[str] = set()
        with dataset.database("raw_files", ids=_table(job_id=_committed(dataset, source, rules))) as database:
            rows = database.sql(f"SELECT raw_path {_KNOWN_SQL}", params=[source, rules])
            for batch in rows.to_arrow_reader(_BATCH):
                paths = batch["raw_path"].to_pylist()
                gone = np.isin(_hashes(paths), unseen)
                found.update(path for path, is_gone in zip(paths, gone.tolist(), strict=True) if is_gone)
        return sorted(found)


def rejects_to_revive(dataset: Dataset, source: str, leaving: Sequence[str] = ()) -> Retry:
    """The rejected duplicates of a source whose original is not in the dataset, or leaves it.

    A duplicate names the pixels that it is equal to, or the sample that it resembles. What an earlier release rejected
    as "already in the dataset" names nothing: it counts as such a duplicate once anything was taken out since.

    Args:
        dataset: The dataset.
        source: The source.
        leaving: Raw paths of the source whose samples may leave.
    """
    jobs = dataset.jobs()
    removals = [number for number, job in enumerate(jobs) if job.get("removed")]
    if not leaving and not removals:
        return Retry()
    before = jobs if leaving else jobs[: removals[-1]]
    found = dataset.query(
        "WITH going AS (SELECT key FROM samples WHERE source = $1 AND raw_path IN (SELECT raw_path FROM leaving)), "
        "staying AS (SELECT key, substr(pixel_sha256, 1, 16) AS hash FROM samples ANTI JOIN going USING (key)), "
        "copies AS (SELECT DISTINCT raw_path, raw_frame, reason, detail, right(detail, 16) AS hash, "
        "regexp_matches(detail, $2) AS named, job_id FROM rejects WHERE source = $1 "
        "AND reason IN ('duplicate', 'near_duplicate') AND raw_path NOT IN (SELECT raw_path FROM leaving)) "
        "SELECT raw_path, raw_frame FROM copies WHERE CASE WHEN NOT named THEN job_id IN (SELECT job_id FROM before) "
        "WHEN reason = 'duplicate' THEN hash NOT IN (SELECT hash FROM staying) "
        "ELSE detail NOT IN (SELECT key FROM staying) END",
        params=[source, _HASH],
        leaving=_table(raw_path=leaving),
        before=_table(job_id=[str(job["job_id"]) for job in before]),
    )
    return Retry(wanted=frames_by_path(found), revived=True)


def frames_by_path(rows: pa.Table) -> dict[str, frozenset[str]]:
    """Rows of `raw_path` and `raw_frame` as raw path → frames."""
    found: dict[str, set[str]] = {}
    for path, frame in zip(rows["raw_path"].to_pylist(), rows["raw_frame"].to_pylist(), strict=True):
        found.setdefault(path, set()).add(frame)
    return {path: frozenset(frames) for path, frames in found.items()}


def _batches(items: Sequence[RawItem]) -> Iterator[list[RawItem]]:
    rest = iter(items)
    while some := list(islice(rest, _BATCH)):
        yield some


_NONE: Final = np.empty(0, np.uint64)


def _committed(dataset: Dataset, source: str, rules: str) -> list[str]:
    """The committed jobs that read files of a source by certain rules, oldest first."""
    if dataset.table("raw_files") is None:
        return []
    sql = "SELECT DISTINCT job_id FROM raw_files WHERE source = ? AND rules = ? AND state = 'read'"
    there = set(dataset.committed(dataset.query(sql, params=[source, rules])["job_id"].to_pylist()))
    known = [str(job["job_id"]) for job in dataset.jobs()]
    return [*sorted(there - set(known)), *(job for job in known if job in there)]


def _samples_by_name(dataset: Dataset, source: str) -> NDArray[np.uint64]:
    rows = dataset.query("SELECT DISTINCT raw_path FROM samples WHERE source = ?", params=[source])
    return np.unique(_hashes(rows["raw_path"].to_pylist()))


def _hashes(paths: Sequence[str]) -> NDArray[np.uint64]:
    digests = b"".join(blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest() for path in paths)
    return np.frombuffer(digests, np.uint64)


def _stamp(stamp: str) -> int:
    """A stamp as a number; 0 where it is not known."""
    return int.from_bytes(blake2b(stamp.encode(), digest_size=4).digest(), "little") or 1 if stamp else 0


def _table(**columns: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
