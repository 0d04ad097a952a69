"""What leaves a dataset with a job: the samples of files that changed or vanished.

A file that is read again gives its samples anew. Those that come out as they were stay where they are, in their shard,
and the staged ones are put aside; the others go in the same commit that brings the new ones. Nothing goes of a file
that cannot be read to its end now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from ingest.staging.context import Retry
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.resolution import WITHHELD, Drops, Resolution
from shards.dataset.dataset import Dataset
from shards.dataset.removal import drop_prints
from shards.dataset.rewrite import drop_rows

_SAME: Final = ("raw_path", "raw_frame", "pixel_sha256", "modality", "group_id", "anatomy", "licence", "extension")
"""What a sample is: a staged one that agrees in these columns with a committed one is the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The raw files of a source whose samples may leave.

    Attributes:
        source: The source.
        again: Raw paths of the files that are read again as a whole.
        gone: Raw paths of the files that vanished and are pruned.
    """

    source: str = ""
    again: Sequence[str] = ()
    gone: Sequence[str] = ()


STAYING: Final = Leaving()
"""Nothing leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """What leaves.

    Attributes:
        keys: Keys of the samples that leave.
        pixels: Their pixel hashes (hex).
        unchanged: Unit → its staged rows that the dataset holds as they are.
    """

    keys: frozenset[str] = frozenset()
    pixels: frozenset[str] = frozenset()
    unchanged: Mapping[int, Drops] = field(default_factory=dict)


def find_outgoing(
    dataset: Dataset, staging: Staging, units: Sequence[UnitReport], leaving: Leaving, *, version: int
) -> Outgoing:
    """Compare what came of files that were read again with what the dataset holds of them.

    Args:
        dataset: The dataset.
        staging: The job's staging folder.
        units: Its units.
        leaving: The files.
        version: Version of the index.
    """
    if version < 0 or not (leaving.again or leaving.gone):
        return Outgoing()
    paths = set(leaving.again) - _pending(staging, units)
    there = dataset.query(
        f"SELECT key, {', '.join(_SAME)} FROM samples "  # noqa: S608 - our own names
        "WHERE source = ? AND raw_path IN (SELECT raw_path FROM paths)",
        params=[leaving.source],
        version=version,
        paths=pa.table({"raw_path": pa.array([*sorted(paths), *leaving.gone], pa.string())}),
    )
    held = dict(zip(_identities(there), there["key"].to_pylist(), strict=True))
    unchanged: dict[int, Drops] = {}
    for unit in units if paths else ():
        for row, identity in enumerate(_identities(staging.table(unit, "index", _SAME)) if unit.kept else ()):
            if identity[0] in paths and held.pop(identity, None) is not None:
                unchanged.setdefault(unit.index, {})[row] = WITHHELD
    pixels = frozenset(identity[2] for identity in held)
    return Outgoing(keys=frozenset(held.values()), pixels=pixels, unchanged=unchanged)


def num_revived(staging: Staging, units: Sequence[UnitReport], resolution: Resolution, revive: Retry) -> int:
    """How many staged samples stay that were rejected as duplicates before."""
    if not revive.wanted:
        return 0
    count = 0
    for unit in units:
        if unit.kept:
            dropped = resolution.dropped(unit.index)
            paths = staging.table(unit, "index", ["raw_path"])["raw_path"].to_pylist()
            count += sum(revive.revives(path) and row not in dropped for row, path in enumerate(paths))
    return count


def _identities(rows: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(rows[name].to_pylist() for name in _SAME), strict=True))


def _pending(staging: Staging, units: Sequence[UnitReport]) -> set[str]:
    """The raw paths that could not be read to their end."""
    found: set[str] = set()
    for unit in units:
        if unit.pending:
            rows = staging.table(unit, "raw_files", ["raw_path", "state"])
            columns = zip(rows["raw_path"].to_pylist(), rows["state"].to_pylist(), strict=True)
            found.update(path for path, state in columns if state == "pending")
    return found


def clear_after(dataset: Dataset, job: str, *, source: str, gone: Sequence[str]) -> None:
    """Complete a commit that took samples out or tried rejects again; harmless when repeated.

    The fingerprints of what left go, the rejects of files that the job has read again, and what the tables say of
    files that vanished.

    Args:
        dataset: The dataset.
        job: The committed job.
        source: Its source.
        gone: Raw paths of the files that it pruned.
    """
    import pyarrow.compute as pc

    drop_prints(dataset, job)
    stale = _stale_rejects(dataset, job, source)
    wanted = pa.array([*stale, *(f"{path}\0" for path in gone)], pa.string())

    def of_ours(batch: pa.RecordBatch) -> pa.Array:
        return pc.and_(pc.equal(batch["source"], source), pc.not_equal(batch["job_id"], job))

    def of_stale(batch: pa.RecordBatch) -> pa.Array:
        file = pc.binary_join_element_wise(batch["raw_path"], "", "\0")
        frame = pc.binary_join_element_wise(batch["raw_path"], batch["raw_frame"], "\0")
        return pc.and_(of_ours(batch), pc.or_(pc.is_in(frame, value_set=wanted), pc.is_in(file, value_set=wanted)))

    def of_gone(batch: pa.RecordBatch) -> pa.Array:
        return pc.and_(of_ours(batch), pc.is_in(batch["raw_path"], value_set=pa.array(gone, pa.string())))

    bounds = {"source": (source, source)}
    columns = ["source", "job_id", "raw_path"]
    if len(wanted):
        drop_rows(
            dataset,
            "rejects",
            of_stale,
            columns=[*columns, "raw_frame"],
            transaction=f"{job}-rejects",
            bounds=bounds,
            spared=job,
        )
    if gone:
        drop_rows(dataset, "raw_files", of_gone, columns=columns, transaction=f"{job}-files", bounds=bounds, spared=job)


def _stale_rejects(dataset: Dataset, job: str, source: str) -> list[str]:
    """Raw path and frame of older rejects that a job has replaced; without a frame, all of the file's."""
    found = dataset.query(
        "WITH ours AS (SELECT raw_path, state, rules FROM raw_files WHERE job_id = $1), "
        "older AS (SELECT DISTINCT job_id FROM raw_files WHERE source = $2 AND job_id <> $1 "
        "AND rules IN (SELECT rules FROM ours)), "
        "met AS (SELECT raw_path, raw_frame FROM samples WHERE job_id = $1 UNION "
        "SELECT raw_path, raw_frame FROM rejects WHERE job_id = $1) "
        "SELECT DISTINCT raw_path, CASE WHEN state = 'read' THEN '' ELSE raw_frame END AS frame "
        "FROM rejects JOIN ours USING (raw_path) WHERE source = $2 AND job_id IN (SELECT job_id FROM older) "
        "AND (state = 'read' "
        "OR (state = 'revived' AND (raw_path, raw_frame) IN (SELECT (raw_path, raw_frame) FROM met)))",
        params=[job, source],
    )
    return [f"{path}\0{frame}" for path, frame in zip(*(column.to_pylist() for column in found.columns), strict=True)]
