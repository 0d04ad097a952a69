"""Two datasets, a disturbed one and its reference: what differs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

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
    lines = [line for name in _TABLES for line in _unequal(name, _rows(left, name), _rows(right, name))]
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


def _rows(dataset: Dataset, name: str) -> list[str]:
    table = dataset.table(name)
    return [] if table is None else sorted(map(str, table.to_pyarrow_table().to_pylist()))


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
