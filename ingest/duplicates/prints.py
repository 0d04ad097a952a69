"""The fingerprints that near duplicates are found by: hashes and places of many images, thumbnails of a few.

The order of images is that in which they came: what the dataset holds by the order of its jobs and, within a job, by
raw path and frame; then the staged ones in the order of the listing. Of two near duplicates the earlier one stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.duplicates.neighbours import Neighbourhood, neighbourhood_of
from ingest.duplicates.pairs import BANDS, Hashes, as_hashes, bands_of
from ingest.duplicates.volumes import group_codes
from ingest.picture.fingerprint import THUMB_PX
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.resolution import Resolution
from shards.dataset.dataset import Dataset

_COLUMNS = ("key", "group_id", "phash")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prints:
    """Fingerprints of some images, in the order in which they came.

    Attributes:
        keys: Sample keys.
        hashes: `(N, 4)` uint64.
        groups: `(N,)` int64 codes of the group ids.
        places: `(N, 2)` int64: unit and row of images that may be dropped, `(-1, -1)` of those that stay.
        standing: `(N, 3)` int64: where their files stand among others (`ingest.duplicates.neighbours`).
    """

    keys: list[str]
    hashes: Hashes
    groups: NDArray[np.int64]
    places: NDArray[np.int64]
    standing: NDArray[np.int64]

    def __add__(self, other: Prints) -> Prints:
        return Prints(
            keys=self.keys + other.keys,
            hashes=np.concatenate([self.hashes, other.hashes]),
            groups=np.concatenate([self.groups, other.groups]),
            places=np.concatenate([self.places, other.places]),
            standing=np.concatenate([self.standing, other.standing]),
        )


def staged_prints(staging: Staging, units: Sequence[UnitReport], exact: Resolution) -> Prints:
    """The fingerprints of the staged images that are no exact duplicates."""
    keys: list[str] = []
    hashes, groups, places = [np.empty((0, 4), np.uint64)], [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)]
    standing = [np.empty((0, 3), np.int64)]
    for unit in units:
        if not unit.kept:
            continue
        table = staging.table(unit, "fingerprints", _COLUMNS)
        dropped = exact.dropped(unit.index)
        rows = [row for row in range(len(table)) if row not in dropped]
        table = table.take(pa.array(rows, pa.int64()))
        keys += table["key"].to_pylist()
        hashes.append(as_hashes(table["phash"].to_pylist()))
        groups.append(group_codes(table["group_id"].to_pylist()))
        places.append(np.array([(unit.index, row) for row in rows], np.int64).reshape(-1, 2))
        names = staging.table(unit, "neighbours", Neighbourhood._fields)
        standing.append(np.stack([names[name].to_numpy()[rows] for name in Neighbourhood._fields], axis=1))
    return Prints(
        keys=keys,
        hashes=np.concatenate(hashes),
        groups=np.concatenate(groups),
        places=np.concatenate(places),
        standing=np.concatenate(standing),
    )


def committed_prints(dataset: Dataset, staged: Hashes, *, without: frozenset[str] = frozenset()) -> Prints:
    """The committed fingerprints that share a band with a staged one, in the order in which they came.

    Args:
        dataset: The dataset.
        staged: The hashes of staged images.
        without: Keys of samples that are about to leave.
    """
    wanted = [np.unique(bands_of(staged)[:, band]) for band in range(BANDS)]
    keys: list[str] = []
    hashes, groups = [np.empty((0, 4), np.uint64)], [np.empty(0, np.int64)]
    for batch in scan_prints(dataset, _COLUMNS):
        codes = as_hashes(batch["phash"].to_pylist())
        bands = bands_of(codes)
        shares = np.zeros(len(codes), bool)
        for band in range(BANDS):
            shares |= np.isin(bands[:, band], wanted[band], assume_unique=False)
        if shares.any():
            chosen = batch.filter(pa.array(shares))
            keys += chosen["key"].to_pylist()
            hashes.append(codes[shares])
            groups.append(group_codes(chosen["group_id"].to_pylist()))
    rows = _index_rows(dataset, sorted({*keys} - without))
    ranks = {str(key): rank for rank, key in enumerate(rows["key"].to_pylist())}
    once = {key: i for i, key in enumerate(keys) if key in ranks}
    order = np.array(sorted(once.values(), key=lambda i: ranks[keys[i]]), np.int64)
    standing = standing_of(rows)[[ranks[keys[i]] for i in order]]
    return Prints(
        keys=[keys[i] for i in order],
        hashes=np.concatenate(hashes)[order],
        groups=np.concatenate(groups)[order],
        places=np.full((len(order), 2), -1, np.int64),
        standing=standing,
    )


def _index_rows(dataset: Dataset, keys: Sequence[str]) -> pa.Table:
    """The index rows of some keys, in the order in which their images came.

    A job that died in its commit may have left fingerprints of others, or the same ones twice.
    """
    found = dataset.query(
        "SELECT key, source, job_id, raw_path, raw_frame FROM samples WHERE key IN (SELECT key FROM wanted)",
        wanted=pa.table({"key": pa.array(sorted(set(keys)), pa.string())}),
    )
    return found.take(pa.array(arrival(dataset, found), pa.int64()))


def standing_of(rows: pa.Table) -> NDArray[np.int64]:
    """`(N, 3)`: where the files of index rows stand among others, as far as their published paths tell."""
    files = zip(*(rows[name].to_pylist() for name in ("source", "raw_path", "raw_frame")), strict=True)
    places = [Neighbourhood() if frame else neighbourhood_of(of, _listed_path(path)) for of, path, frame in files]
    return np.array(places, np.int64).reshape(-1, 3)


def arrival(dataset: Dataset, rows: pa.Table) -> list[int]:
    """Positions of index rows in the order in which their images came.

    Args:
        dataset: The dataset; its commits give the order of the jobs.
        rows: Columns `key`, `job_id`, `raw_path` and `raw_frame`.
    """
    number = {entry["job_id"]: n for n, entry in enumerate(dataset.jobs())}
    columns = zip(*(rows[name].to_pylist() for name in ("job_id", "raw_path", "raw_frame", "key")), strict=True)
    ranks = [(number.get(job, -1), _listed_path(path), frame, key) for job, path, frame, key in columns]
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def _listed_path(raw_path: str) -> str:
    """The path by which a raw file is listed: archive first, then what is in it."""
    parts = [part.partition("://")[2] or part for part in raw_path.split("::")]
    return "/".join(reversed(parts))


def scan_prints(dataset: Dataset, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The fingerprints of all samples that the index holds, batch by batch."""
    from shards.dataset.query import scan, told_plainly

    table = dataset.table("fingerprints")
    if table is not None:
        with told_plainly(dataset.url):
            yield from (batch for batch in scan(table).to_batches(columns=list(columns)) if batch.num_rows)


class StagedThumbs:
    """Thumbnails of staged and committed images, read for those alone that are asked for.

    Args:
        dataset: The dataset.
        staging: The job's staging folder.
        units: Its units.
        prints: The images.
    """

    def __init__(self, dataset: Dataset, staging: Staging, units: Sequence[UnitReport], prints: Prints) -> None:
        self._dataset = dataset
        self._staging = staging
        self._prints = prints
        self._of_unit = {unit.index: unit for unit in units}

    def __call__(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """`(P, 4096)` uint8."""
        unique, inverse = np.unique(positions, return_inverse=True)
        out = np.zeros((len(unique), THUMB_PX * THUMB_PX), np.uint8)
        places = self._prints.places[unique]
        committed = {self._prints.keys[p]: i for i, p in enumerate(unique.tolist()) if places[i, 0] < 0}
        for i in np.flatnonzero(places[:, 0] >= 0):
            table = self._staging.table(self._of_unit[int(places[i, 0])], "fingerprints")
            out[i] = np.frombuffer(table["thumb"][int(places[i, 1])].as_py(), np.uint8)
        if committed:
            for key, thumb in committed_thumbs(self._dataset, list(committed)):
                out[committed[key]] = np.frombuffer(thumb, np.uint8)
        return out[inverse]


def committed_thumbs(dataset: Dataset, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Thumbnails of committed samples by key."""
    import pyarrow.dataset as ds

    from shards.dataset.query import ask_tables, scan

    table = dataset.table("fingerprints")
    if table is not None:
        ours = ds.field("key").isin(pa.array(keys, pa.string()))
        found = ask_tables(dataset.url, lambda: scan(table).to_table(columns=["key", "thumb"], filter=ours))
        yield from zip(found["key"].to_pylist(), found["thumb"].to_pylist(), strict=True)
