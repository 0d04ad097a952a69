"""What a job adds to the tables: index rows and fingerprints of what stays, and the rejects with their reasons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.job.promote import PLACE, Pack, Piece, Promoted
from ingest.staging.context import UnitReport
from ingest.staging.folder import read_staged, staged_batches
from ingest.staging.resolution import Resolution
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


def index_rows(
    store: Store, staging: str, packs: Sequence[Pack], promoted: Mapping[int, Promoted], units: Sequence[UnitReport]
) -> Iterator[pa.RecordBatch]:
    """The index rows of the kept samples, in the order of modality, source, shard and row.

    They are the staged rows with their final places. Holds the rows of one unit.
    """
    unit_of = {tar: unit.index for unit in units for tar in unit.shards}
    for pack in sorted(packs, key=lambda pack: (pack.modality, pack.source, promoted[pack.index].shard)):
        done = promoted[pack.index]
        places = None if done.places is None else np.frombuffer(done.places, np.int64).reshape(-1, len(PLACE))
        first = 0
        for piece in pack.pieces:
            table = _rows_of(read_staged(store, staging, unit_of[piece.tar], "samples"), piece)
            here = None if places is None else places[first : first + len(table)]
            first += len(table)
            yield from _placed(table, done.shard, here).to_batches()


def _rows_of(table: pa.Table, piece: Piece) -> pa.Table:
    wanted = np.isin(table["shard_row"].to_numpy(), np.frombuffer(piece.rows, np.int32))
    return table.filter(pc.and_(pc.equal(table["shard"], piece.tar), pa.array(wanted)))


def _placed(table: pa.Table, shard: str, places: NDArray[np.int64] | None) -> pa.Table:
    table = _replace(table, "shard", [shard] * len(table))
    if places is not None:
        for name, values in zip(PLACE, places.T, strict=True):
            table = _replace(table, name, values)
    return table


def _replace(table: pa.Table, name: str, values: Sequence[str] | NDArray[np.int64]) -> pa.Table:
    at = table.schema.get_field_index(name)
    column = table.schema.field(at)
    return table.set_column(at, column, pa.array(values, column.type))
