"""What a job adds to the tables beside the index: fingerprints of what stays, and the rejects with their reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ingest.mapping import UnitReport
from ingest.resolve import Resolution, read_staged
from shards.schema import rejects_schema
from shards.store import Store

_BATCH_ROWS = 128


def kept_prints(
    store: Store, staging: str, units: Sequence[UnitReport], resolution: Resolution
) -> Iterator[pa.RecordBatch]:
    """The fingerprints of the images that stay, unit by unit."""
    for unit in units:
        if unit.kept:
            table = read_staged(store, staging, unit.index, "prints")
            yield from _without(table, resolution.dropped(unit.index)).to_batches(max_chunksize=_BATCH_ROWS)


def reject_rows(
    store: Store, staging: str, units: Sequence[UnitReport], resolution: Resolution
) -> Iterator[pa.RecordBatch]:
    """Everything that a job does not take: the rejects of the map step, then what was dropped afterwards."""
    for unit in units:
        yield from read_staged(store, staging, unit.index, "rejects").to_batches()
    for unit in units:
        drops = resolution.dropped(unit.index)
        if drops:
            columns = ("source", "modality", "raw_path", "raw_frame", "job_id")
            rows = sorted(drops)
            table = read_staged(store, staging, unit.index, "samples", columns).take(rows)
            table = table.append_column("reason", pa.array([drops[row][0] for row in rows]))
            table = table.append_column("detail", pa.array([drops[row][1] for row in rows]))
            yield from table.select(rejects_schema().names).cast(rejects_schema()).to_batches()


def _without(table: pa.Table, drops: Mapping[int, Any]) -> pa.Table:
    if not drops:
        return table
    return table.filter(pa.array([row not in drops for row in range(len(table))]))
