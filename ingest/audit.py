"""An audit of a finished dataset: its near duplicates, and its overlap with evaluation sets.

The result is a keep table; nothing is deleted. A subset can leave the rows with `keep = false` out, or the sources be
ingested again with other settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.near import committed_thumbs
from ingest.neighbours import as_hashes, correlation, near_pairs
from ingest.overlap import centre_thumbs, find_overlap, load_evaluation
from ingest.settings import DedupSettings
from ingest.vote import group_codes
from shards.dataset import Dataset

_BATCH = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit found.

    Attributes:
        table: One row a sample: `key, source, modality, keep, reason, representative, bits, ncc`. `representative` is
        the
            sample that stays, or the evaluation image.
        compared: Pairs of hashes that were compared.
        skipped_buckets: Buckets that were too crowded to search.
        num_samples: Samples of the dataset.
        near_duplicates: Samples that a near-duplicate rule drops.
        eval_overlap: Samples that match an evaluation image.
    """

    table: pa.Table
    compared: int
    skipped_buckets: int
    num_samples: int
    near_duplicates: int
    eval_overlap: int


def audit(dataset: Dataset, *, settings: DedupSettings | None = None, evaluation: Sequence[str] = ()) -> Audit:
    """Search a dataset for near duplicates across groups, and for images of evaluation sets.

    Of near duplicates the sample with the smallest key stays; one is dropped only for another that stays.

    Args:
        dataset: The dataset; its newest version is looked at.
        settings: Radius, correlation and bucket cap.
        evaluation: MedMNIST `.npz` files.
    """
    settings = settings or DedupSettings()
    rows = _rows(dataset)
    hashes = as_hashes(rows["phash"].to_pylist())
    keys: list[str] = rows["key"].to_pylist()
    groups = group_codes(rows["group_id"].to_pylist())
    found = near_pairs(hashes, groups, radius=settings.radius_bits, bucket_cap=settings.bucket_cap)
    verdicts: dict[int, tuple[str, str, int, float]] = {}
    for first, second, bits, ncc in _confirmed(dataset, keys, found, settings.min_ncc):
        if first not in verdicts and second not in verdicts:
            verdicts[second] = ("near_duplicate", keys[first], bits, ncc)
    if evaluation:
        verdicts |= _overlap(dataset, rows, settings, evaluation)
    reasons = [verdict[0] for verdict in verdicts.values()]
    return Audit(
        table=_table(rows, verdicts),
        compared=found.compared,
        skipped_buckets=found.skipped_buckets,
        num_samples=len(keys),
        near_duplicates=reasons.count("near_duplicate"),
        eval_overlap=reasons.count("eval_overlap"),
    )


def _rows(dataset: Dataset) -> pa.Table:
    """Fingerprints joined with the index, in the order of the keys."""
    from shards.index import connect, scan

    index, prints = dataset.table("index"), dataset.table("fingerprints")
    if index is None or prints is None:
        return pa.table({name: [] for name in ("key", "source", "modality", "group_id", "phash", "phash_centre")})
    with connect() as database:
        database.register("samples", scan(index))
        database.register("prints", scan(prints))
        return database.sql(
            "SELECT s.key, s.source, s.modality, s.group_id, s.width, s.height, p.phash, p.phash_centre "
            "FROM samples s JOIN prints p ON s.key = p.key AND s.pixel_sha256 = p.pixel_sha256 ORDER BY s.key"
        ).to_arrow_table()


def _thumbs(dataset: Dataset, keys: Sequence[str], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    unique, inverse = np.unique(positions, return_inverse=True)
    found = dict(committed_thumbs(dataset, [keys[i] for i in unique]))
    return np.stack([np.frombuffer(found[keys[i]], np.uint8) for i in unique])[inverse]


def _confirmed(dataset: Dataset, keys: Sequence[str], found: Any, least: float) -> list[tuple[int, int, int, float]]:
    """Pairs whose thumbnails correlate, in the order of the second, then the first."""
    pairs = []
    for start in range(0, len(found.first), _BATCH):
        part = slice(start, start + _BATCH)
        first, second, bits = found.first[part], found.second[part], found.bits[part]
        scores = correlation(_thumbs(dataset, keys, first), _thumbs(dataset, keys, second))
        rows = zip(first.tolist(), second.tolist(), bits.tolist(), scores.tolist(), strict=True)
        pairs += [(a, b, n, round(ncc, 4)) for a, b, n, ncc in rows if ncc >= least]
    return sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def _overlap(
    dataset: Dataset, rows: pa.Table, settings: DedupSettings, evaluation: Sequence[str]
) -> dict[int, tuple[str, str, int, float]]:
    keys: list[str] = rows["key"].to_pylist()
    sizes = np.stack([rows["width"].to_numpy(), rows["height"].to_numpy()], axis=1).astype(np.int64)

    def whole(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return _thumbs(dataset, keys, positions)

    def centre(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        return centre_thumbs(whole(positions), sizes[positions])

    views = [
        (as_hashes(rows["phash"].to_pylist()), whole),
        (as_hashes(rows["phash_centre"].to_pylist()), centre),
    ]
    matches = find_overlap(load_evaluation(evaluation), views, settings)
    return {position: ("eval_overlap", m.name, m.bits, m.ncc) for position, m in matches.items()}


def _table(rows: pa.Table, verdicts: dict[int, tuple[str, str, int, float]]) -> pa.Table:
    nothing = ("", "", 0, 0.0)
    columns = list(zip(*(verdicts.get(i, nothing) for i in range(len(rows))), strict=True)) or [(), (), (), ()]
    table = rows.select(["key", "source", "modality"])
    table = table.append_column("keep", pa.array([i not in verdicts for i in range(len(rows))], pa.bool_()))
    table = table.append_column("reason", pa.array(columns[0], pa.string()))
    table = table.append_column("representative", pa.array(columns[1], pa.string()))
    table = table.append_column("bits", pa.array(columns[2], pa.int32()))
    return table.append_column("ncc", pa.array(columns[3], pa.float32()))
