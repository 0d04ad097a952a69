"""The resolve step: which staged samples stay.

The rule for exact duplicates: an image that the dataset holds already stays, whatever its source; of the others the
first in the order of the listing (raw path, then frame). Near duplicates likewise, one after the other in that order:
an image is dropped if one that stays, of another group, is within the radius of its perceptual hash and their
thumbnails correlate. So all that is dropped resembles something that is kept, and chains of small steps do not run
away. Before that, volumes that are there twice go as a whole (`ingest.duplicates.volumes`). All of it follows from the
raw data and the committed index alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ingest.job.map import UnitReport, unit_name
from shards.dataset.dataset import Dataset
from shards.store import Store

Drops = dict[int, tuple[str, str]]
"""Row of a unit's samples → `(reason, detail)`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a job drops after the map step.

    Attributes:
        version: The index version that was looked at.
        drops: Unit → its dropped rows.
        skipped_buckets: Buckets of near-duplicate candidates that were too crowded to search.
        overlap: Evaluation task → staged images that match one of its images.
    """

    version: int
    drops: Mapping[int, Drops] = field(default_factory=dict)
    skipped_buckets: int = 0
    overlap: Mapping[str, int] = field(default_factory=dict)

    def dropped(self, unit: int) -> Drops:
        """The dropped rows of a unit."""
        return self.drops.get(unit, {})


def read_staged(store: Store, staging: str, unit: int, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One of a unit's staged tables."""
    with _open_staged(store, staging, unit, table) as file:
        return file.read(columns=list(columns) if columns else None, use_threads=False)


def staged_batches(store: Store, staging: str, unit: int, table: str, num_rows: int) -> Iterator[pa.RecordBatch]:
    """One of a unit's staged tables, so many rows at a time; from a local disk it is not read as a whole either."""
    with _open_staged(store, staging, unit, table) as file:
        yield from file.iter_batches(num_rows, use_threads=False)


@contextmanager
def _open_staged(store: Store, staging: str, unit: int, table: str) -> Iterator[pq.ParquetFile]:
    path = f"{staging}/{unit_name(unit, table)}"
    local = store.local_path(path)
    there = local is not None and local.exists()  # else the store tells what is wrong
    source = pa.OSFile(str(local)) if there else pa.BufferReader(store.read(path))
    with source, pq.ParquetFile(source, pre_buffer=False) as file:
        yield file
    pa.default_memory_pool().release_unused()  # a job reads thousands of these


def resolve_exact(dataset: Dataset, staging: str, units: Sequence[UnitReport]) -> Resolution:
    """Find the exact duplicates among the staged samples and against the index.

    Memory: 40 bytes a staged sample, and the hashes that the index shares.
    """
    version = dataset.version()
    rows = [_hashes(dataset.store, staging, unit) for unit in units if unit.kept]
    if not rows:
        return Resolution(version=version)
    sizes = [len(part) for part in rows]
    hashes = np.concatenate(rows)
    unit_of = np.repeat([unit.index for unit in units if unit.kept], sizes)
    row_of = np.concatenate([np.arange(size) for size in sizes])
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    committed = _committed(dataset, hashes[first])
    drops: dict[int, Drops] = {}
    for position in np.flatnonzero((first[inverse] != np.arange(len(hashes))) | committed[inverse]):
        which = int(inverse[position])
        detail = "already in the dataset" if committed[which] else hashes[first[which]].tobytes().hex()[:16]
        drops.setdefault(int(unit_of[position]), {})[int(row_of[position])] = ("duplicate", detail)
    return Resolution(version=version, drops=drops)


def _hashes(store: Store, staging: str, unit: UnitReport) -> NDArray[np.bytes_]:
    column = read_staged(store, staging, unit.index, "samples", ["pixel_sha256"])["pixel_sha256"]
    return np.array([bytes.fromhex(text) for text in column.to_pylist()], dtype="V32")


def _committed(dataset: Dataset, hashes: NDArray[np.bytes_], batch: int = 1 << 20) -> NDArray[np.bool_]:
    """Which of the (distinct) hashes the index holds."""
    out = np.zeros(len(hashes), dtype=bool)
    for start in range(0, len(hashes), batch):
        texts = [value.tobytes().hex() for value in hashes[start : start + batch]]
        found = dataset.find_pixels(texts)
        out[start : start + batch] = [text in found for text in texts]
    return out
