"""The commit step: what a job adds to the tables appears at once.

Index rows and fingerprints of what stays, the rejects with their reasons, and the raw files that were read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.job.promote import PLACE, Pack, Piece, Promoted
from ingest.job.settle import Settled
from ingest.privacy.tombstones import WITHDRAWN
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.resolution import Resolution
from ingest.staging.tables import SCHEMAS
from shards.dataset.dataset import Dataset
from shards.dataset.removal import Removal
from shards.schema import rejects_schema

_BATCH_ROWS = 128


def commit(
    dataset: Dataset,
    staging: Staging,
    job_id: str,
    *,
    units: Sequence[UnitReport],
    settled: Settled,
    summary: Mapping[str, Any],
    removal: Removal | None = None,
) -> int:
    """Add a job's rows to the tables in one step, in which a removal takes others out.

    Returns:
        The index version after the commit.
    """

    def reader(name: str, batches: Callable[[], Iterator[pa.RecordBatch]]) -> Callable[[], pa.RecordBatchReader]:
        return lambda: pa.RecordBatchReader.from_batches(SCHEMAS[name](), batches())

    resolution = settled.resolution
    return dataset.commit(
        job_id=job_id,
        rows=reader("index", lambda: index_rows(staging, settled.packs, settled.promoted, units)),
        rejects=reader("rejects", lambda: reject_rows(staging, units, resolution)),
        fingerprints=reader("fingerprints", lambda: kept_prints(staging, units, resolution)),
        raw_files=reader("raw_files", lambda: raw_file_rows(staging, units)),
        summary=summary,
        removal=removal,
    )


def kept_prints(staging: Staging, units: Sequence[UnitReport], resolution: Resolution) -> Iterator[pa.RecordBatch]:
    """The fingerprints of the images that stay, unit by unit and a few at a time: their thumbnails are large."""
    for unit in units:
        if unit.kept:
            dropped = resolution.dropped(unit.index)
            first = 0
            for batch in staging.batches(unit, "fingerprints", _BATCH_ROWS):
                stays = pa.array([row not in dropped for row in range(first, first + len(batch))], pa.bool_())
                yield batch.filter(stays) if dropped else batch
                first += len(batch)


def raw_file_rows(staging: Staging, units: Sequence[UnitReport]) -> Iterator[pa.RecordBatch]:
    """The raw files that were read, or could not be read yet."""
    for unit in units:
        yield from staging.table(unit, "raw_files").to_batches()


def reject_rows(staging: Staging, units: Sequence[UnitReport], resolution: Resolution) -> Iterator[pa.RecordBatch]:
    """Everything that a job does not take: the rejects of the map step, then what was dropped afterwards."""
    for unit in units:
        yield from _without_withdrawn(staging, unit, resolution).to_batches()
    for unit in units:
        drops = resolution.rejected(unit.index)
        if drops:
            columns = ("source", "modality", "raw_path", "raw_frame", "job_id")
            rows = sorted(drops)
            table = staging.table(unit, "index", columns).take(rows)
            table = table.append_column("reason", pa.array([drops[row][0] for row in rows]))
            table = table.append_column("detail", pa.array([drops[row][1] for row in rows]))
            yield from table.select(rejects_schema().names).cast(rejects_schema()).to_batches()


def _without_withdrawn(staging: Staging, unit: UnitReport, resolution: Resolution) -> pa.Table:
    """The rejects of a unit; copies of withdrawn images do not name them and are withdrawn too."""
    rejects = staging.table(unit, "rejects")
    gone = [row for row, (reason, _) in resolution.rejected(unit.index).items() if reason == WITHDRAWN]
    if not gone or not len(rejects):
        return rejects
    keys = staging.table(unit, "index", ["key"])["key"].take(gone)
    copies = pc.and_(pc.equal(rejects["reason"], "duplicate"), pc.is_in(rejects["detail"], value_set=keys))
    return _replace(
        _replace(rejects, "reason", pc.if_else(copies, WITHDRAWN, rejects["reason"])),
        "detail",
        pc.if_else(copies, "", rejects["detail"]),
    )


def index_rows(
    staging: Staging, packs: Sequence[Pack], promoted: Mapping[int, Promoted], units: Sequence[UnitReport]
) -> Iterator[pa.RecordBatch]:
    """The index rows of the kept samples, in the order of modality, source, shard and row.

    They are the staged rows with their final places. Holds the rows of a few units.
    """
    unit_of = {tar: unit for unit in units for tar in unit.shards}
    for pack in sorted(packs, key=lambda pack: (pack.modality, pack.source, promoted[pack.index].shard)):
        done = promoted[pack.index]
        places = None if done.places is None else np.frombuffer(done.places, np.int64).reshape(-1, len(PLACE))
        first = 0
        for piece in pack.pieces:
            table = _rows_of(staging.table(unit_of[piece.tar], "index"), piece)
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


def _replace(table: pa.Table, name: str, values: Sequence[str] | NDArray[np.int64] | pa.ChunkedArray) -> pa.Table:
    at = table.schema.get_field_index(name)
    column = table.schema.field(at)
    given = values.cast(column.type) if isinstance(values, pa.ChunkedArray) else pa.array(values, column.type)
    return table.set_column(at, column, given)
