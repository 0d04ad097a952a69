"""What a job adds to the tables beside the index: fingerprints of what stays, and the rejects with their reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from ingest.job.map import UnitReport
from ingest.job.resolve import Resolution, read_staged, staged_batches
from shards.schema import rejects_schema
from shards.store import Store

_BATCH_ROWS = 128


def kept_prints(
    store: Store, staging: str, units: Sequence[UnitReport], resolution: Resolution
) -> Iterator[pa.RecordBatch]:
    """The fingerprints of the images that stay, unit by unit and a few at a time: their thumbnails are large."""
    for unit in units:
        if unit.kept:
            dropped = resolution.dropped(unit.index)
            first = 0
            for batch in staged_batches(store, staging, unit.index, "prints", _BATCH_ROWS):
                stays = pa.array([row not in dropped for row in range(first, first + len(batch))], pa.bool_())
                yield batch.filter(stays) if dropped else batch
                first += len(batch)


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
