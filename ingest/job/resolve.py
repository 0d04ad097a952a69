"""The resolve step: which staged samples stay.

What a tombstone knows goes first. The rule for exact duplicates: an image that the dataset holds already stays,
whatever its source; of the others the first in the order of the listing (raw path, then frame). Near duplicates follow
(`ingest.duplicates.near`), and images that are in an evaluation set come last. All of it follows from the raw data, the
committed index and the tombstones alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import SecretStr

from ingest.duplicates.near import resolve_near, resolve_overlap
from ingest.job.outgoing import STAYING, Leaving, find_outgoing
from ingest.privacy.tombstones import COLUMNS, WITHDRAWN, tombstones_of
from ingest.settings import DedupSettings
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.resolution import WITHHELD, Drops, Resolution
from shards.dataset.dataset import Dataset


def resolve(
    dataset: Dataset,
    staging: Staging,
    units: Sequence[UnitReport],
    settings: DedupSettings,
    secret: SecretStr,
    *,
    leaving: Leaving = STAYING,
) -> Resolution:
    """Decide which staged samples are dropped, and why, and which committed ones leave.

    Args:
        dataset: The dataset.
        staging: What is staged.
        units: Its units.
        settings: The rules for near duplicates.
        secret: The dataset's, by which tombstones know withdrawn images again.
        leaving: The raw files whose samples may leave.
    """
    exact = resolve_exact(dataset, staging, units, secret, leaving=leaving)
    near = resolve_near(dataset, staging, units, exact, settings)
    return resolve_overlap(staging, units, near, settings)


def resolve_exact(
    dataset: Dataset,
    staging: Staging,
    units: Sequence[UnitReport],
    secret: SecretStr,
    *,
    leaving: Leaving = STAYING,
) -> Resolution:
    """Find the withdrawn images and the exact duplicates among the staged samples and against what stays of the index.

    Memory: 40 bytes per staged sample, the hashes that the index shares, and the tombstones.
    """
    version = dataset.version()
    outgoing = find_outgoing(dataset, staging, units, leaving, version=version)
    units = [unit for unit in units if unit.kept]
    drops: dict[int, Drops] = {unit.index: dict.fromkeys(unit.withheld, WITHHELD) for unit in units if unit.withheld}
    for unit, rows_of in outgoing.unchanged.items():
        drops.setdefault(unit, {}).update(rows_of)
    if not units:
        return Resolution(version=version, outgoing=outgoing.keys)
    _drop_withdrawn(dataset, staging, units, secret, drops)
    rows = [np.setdiff1d(np.arange(unit.kept), sorted(drops.get(unit.index, ()))) for unit in units]
    hashes = np.concatenate([_hashes(staging, unit)[stays] for unit, stays in zip(units, rows, strict=True)])
    unit_of = np.repeat([unit.index for unit in units], [len(stays) for stays in rows])
    row_of = np.concatenate(rows)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    committed = _committed(dataset, hashes[first], outgoing.pixels)
    for position in np.flatnonzero((first[inverse] != np.arange(len(hashes))) | committed[inverse]):
        which = int(inverse[position])
        name = hashes[first[which]].tobytes().hex()[:16]
        detail = f"already in the dataset: {name}" if committed[which] else name
        drops.setdefault(int(unit_of[position]), {})[int(row_of[position])] = ("duplicate", detail)
    return Resolution(version=version, drops=drops, outgoing=outgoing.keys)


def _drop_withdrawn(
    dataset: Dataset, staging: Staging, units: Sequence[UnitReport], secret: SecretStr, drops: dict[int, Drops]
) -> None:
    """Add what tombstones know; they are read after the version, so none of those that it rests on is missed."""
    tombstones = tombstones_of(dataset, secret)
    if tombstones is None:
        return
    for unit in units:
        gone = tombstones.of_table(staging.table(unit, "index", COLUMNS))
        withheld = frozenset(unit.withheld)
        found: Drops = {row: (WITHDRAWN, "") for row, is_gone in enumerate(gone) if is_gone and row not in withheld}
        if found:
            drops.setdefault(unit.index, {}).update(found)


def _hashes(staging: Staging, unit: UnitReport) -> NDArray[np.bytes_]:
    column = staging.table(unit, "index", ["pixel_sha256"])["pixel_sha256"]
    return np.array([bytes.fromhex(text) for text in column.to_pylist()], dtype="V32")


def _committed(
    dataset: Dataset, hashes: NDArray[np.bytes_], outgoing: frozenset[str], batch: int = 1 << 20
) -> NDArray[np.bool_]:
    """Which of the (distinct) hashes the index holds, but for those that leave it."""
    out = np.zeros(len(hashes), dtype=bool)
    for start in range(0, len(hashes), batch):
        texts = [value.tobytes().hex() for value in hashes[start : start + batch]]
        found = dataset.find_pixels(texts)
        out[start : start + batch] = [text in found and text not in outgoing for text in texts]
    return out
