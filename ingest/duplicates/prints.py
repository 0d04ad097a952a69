"""The fingerprints that near duplicates are found by: hashes and places of many images, thumbnails of a few."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.duplicates.pairs import Hashes
from ingest.picture.fingerprint import THUMB_PX
from ingest.staging.folder import read_staged
from shards.dataset.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Prints:
    """Fingerprints of some images, in order.

    Attributes:
        keys: Sample keys.
        hashes: `(N, 4)` uint64.
        groups: `(N,)` int64 codes of the group ids.
        places: `(N, 2)` int64: unit and row of staged images, `(-1, -1)` of committed ones.
    """

    keys: list[str]
    hashes: Hashes
    groups: NDArray[np.int64]
    places: NDArray[np.int64]


def scan_prints(dataset: Dataset, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The fingerprints of all samples that the index holds, batch by batch."""
    from shards.dataset.query import scan

    table = dataset.table("fingerprints")
    if table is not None:
        yield from (batch for batch in scan(table).to_batches(columns=list(columns)) if batch.num_rows)


class Thumbs:
    """Thumbnails of staged and committed images, read for those alone that are asked for."""

    def __init__(self, dataset: Dataset, staging: str, prints: Prints) -> None:
        self._dataset = dataset
        self._staging = staging
        self._prints = prints
        self._units: dict[int, pa.ChunkedArray] = {}

    def of(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`(P, 4096)` uint8."""
        unique, inverse = np.unique(positions, return_inverse=True)
        out = np.zeros((len(unique), THUMB_PX * THUMB_PX), np.uint8)
        places = self._prints.places[unique]
        committed = {self._prints.keys[p]: i for i, p in enumerate(unique.tolist()) if places[i, 0] < 0}
        for i in np.flatnonzero(places[:, 0] >= 0):
            out[i] = np.frombuffer(self._unit(int(places[i, 0]))[int(places[i, 1])].as_py(), np.uint8)
        if committed:
            for key, thumb in committed_thumbs(self._dataset, list(committed)):
                out[committed[key]] = np.frombuffer(thumb, np.uint8)
        return out[inverse]

    def _unit(self, unit: int) -> pa.ChunkedArray:
        if unit not in self._units:
            if len(self._units) >= 8:
                self._units.pop(next(iter(self._units)))
            self._units[unit] = read_staged(self._dataset.store, self._staging, unit, "prints", ["thumb"])["thumb"]
        return self._units[unit]


def committed_thumbs(dataset: Dataset, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Thumbnails of committed samples by key."""
    import pyarrow.dataset as ds

    from shards.dataset.query import scan

    table = dataset.table("fingerprints")
    if table is not None:
        found = scan(table).to_table(columns=["key", "thumb"], filter=ds.field("key").isin(pa.array(keys, pa.string())))
        yield from zip(found["key"].to_pylist(), found["thumb"].to_pylist(), strict=True)
