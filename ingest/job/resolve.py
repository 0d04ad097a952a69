"""The resolve step: which staged samples stay.

The rule for exact duplicates: an image that the dataset holds already stays, whatever its source; of the others the
first in the order of the listing (raw path, then frame). Near duplicates likewise, one after the other in that order:
an image is dropped if one that stays, of another group, is within the radius of its perceptual hash and their
thumbnails correlate. So all that is dropped resembles something that is kept, and chains of small steps do not run
away. Before that, volumes that are there twice go as a whole (`ingest.duplicates.volumes`). All of it follows from the
raw data and the committed index alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.staging.context import UnitReport
from ingest.staging.folder import read_staged
from ingest.staging.resolution import Drops, Resolution
from shards.dataset.dataset import Dataset
from shards.store import Store


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
