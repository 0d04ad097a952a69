"""Two datasets, a disturbed one and its reference: what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from infra.bench.soak.material import SOURCES
from shards.dataset.dataset import Dataset

__all__ = ["differences"]

_TABLES = ("index", "fingerprints", "rejects", "raw_files")
_SHOWN = 3


def differences(found: str, expected: str, *, same_history: bool) -> list[str]:
    """What the dataset `found` has otherwise than the dataset `expected`, a line each.

    Args:
        found: URL.
        expected: URL.
        same_history: Whether both were committed job by job alike: then shards and rows are equal byte for byte. A job
            that had to leave files for later packs otherwise; then the images and their pixels are compared.
    """
    left, right = Dataset.open(found), Dataset.open(expected)
    if not same_history:
        return list(_unequal("images", _images(left), _images(right)))
    dead = _dead_jobs(left)
    lines = [line for name in _TABLES for line in _unequal(name, _rows(left, name, dead), _rows(right, name, dead))]
    lines += _unequal("withdrawn", _tombstones(left), _tombstones(right))
    return [*lines, *_unequal("shards", _shards(left), _shards(right))]


def _unequal(what: str, found: Sequence[Any], expected: Sequence[Any]) -> Iterator[str]:
    lost = [item for item in expected if item not in found]
    more = [item for item in found if item not in expected]
    if lost:
        yield f"{what}: {len(lost)} of {len(expected)} missing, such as {str(lost[:_SHOWN])[:300]}"
    if more:
        yield f"{what}: {len(more)} that should not be there, such as {str(more[:_SHOWN])[:300]}"
    if len(found) != len(expected) and not lost and not more:
        yield f"{what}: {len(found)} instead of {len(expected)}"


def _dead_jobs(dataset: Dataset) -> set[str]:
    """Jobs that died in their commit and whose source changed before the next run, so that none has finished them.

    What they have left counts for nothing: raw files and rejects of a job that the index does not have, fingerprints
    of images that it does not have, or that another job has brought again.
    """
    begun = {str(entry.get("biovfm.job", "")) for name in _TABLES[1:] for entry in dataset.commits(name)}
    return {job for job in begun if job.rpartition("-")[0] in SOURCES and not dataset.has_job(job)}


def _rows(dataset: Dataset, name: str, dead: Collection[str]) -> list[str]:
    table = dataset.table(name)
    rows = [] if table is None else table.to_pyarrow_table().to_pylist()
    lines = sorted(str(row) for row in rows if row.get("job_id") not in dead)
    if name != "fingerprints" or not dead:
        return lines
    keys = set(dataset.query("SELECT key FROM samples")["key"].to_pylist())
    return sorted({str(row) for row in rows if row["key"] in keys})


def _tombstones(dataset: Dataset) -> list[tuple[str, str, str]]:
    """What is withdrawn, whenever that was."""
    table = dataset.table("withdrawn")
    rows = [] if table is None else table.to_pyarrow_table(columns=["kind", "source", "mark"]).to_pylist()
    return sorted((row["kind"], row["source"], row["mark"]) for row in rows)


def _shards(dataset: Dataset) -> list[tuple[str, str]]:
    names = dataset.query("SELECT DISTINCT shard FROM samples ORDER BY 1").to_pylist()
    return [(row["shard"], hashlib.sha256(dataset.store.read(row["shard"])).hexdigest()) for row in names]


def _images(dataset: Dataset) -> list[tuple[str, str]]:
    """Hash of the pixels and hash of the bytes of every image."""
    sql = "SELECT pixel_sha256, shard, byte_offset, byte_length FROM samples ORDER BY 1"
    rows = dataset.query(sql).to_pylist()
    shards = {name: dataset.store.read(name) for name in {row["shard"] for row in rows}}
    return [(row["pixel_sha256"], hashlib.sha256(_cut(shards[row["shard"]], row)).hexdigest()) for row in rows]


def _cut(shard: bytes, row: dict[str, Any]) -> bytes:
    return shard[row["byte_offset"] : row["byte_offset"] + row["byte_length"]]
