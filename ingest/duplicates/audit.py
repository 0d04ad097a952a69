"""An audit of a finished dataset: its near duplicates, and its overlap with evaluation sets.

The result is a keep table; nothing is deleted. A subset can leave the rows with `keep = false` out, or the sources be
ingested again with other settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.duplicates.evaluation import centre_thumbs, find_overlap, load_evaluation
from ingest.duplicates.near import closest_pairs, find_losers, in_volumes
from ingest.duplicates.pairs import Neighbours, as_hashes, correlation, near_pairs
from ingest.duplicates.prints import committed_thumbs
from ingest.duplicates.volumes import Slices, collect, group_codes, vote
from ingest.settings import DedupSettings
from shards.dataset.dataset import Dataset

_BATCH = 4096

Verdict = tuple[str, str, int, float]
"""Reason, what stays, bits and correlation (0 and 0 for a slice that goes with its volume)."""


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

    Of near duplicates the sample with the smallest key stays; one is dropped only for another that stays. Volumes that
    are there twice go as a whole (`ingest.duplicates.volumes`): the one whose smallest key is larger.

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
    verdicts = _near(dataset, rows, groups, found, settings)
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


_COLUMNS = ("key", "source", "modality", "group_id", "raw_frame", "pixel_sha256", "width", "height")
_PRINTS = ("phash", "phash_centre")


def _rows(dataset: Dataset) -> pa.Table:
    """Fingerprints joined with the index, in the order of the keys."""
    return dataset.query(
        f"SELECT {', '.join(f's.{name}' for name in _COLUMNS)}, {', '.join(_PRINTS)} "  # noqa: S608 - our own names
        "FROM samples s JOIN fingerprints p ON s.key = p.key AND s.pixel_sha256 = p.pixel_sha256 ORDER BY s.key"
    )


def _thumbs(dataset: Dataset, keys: Sequence[str], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    unique, inverse = np.unique(positions, return_inverse=True)
    found = dict(committed_thumbs(dataset, [keys[i] for i in unique]))
    return np.stack([np.frombuffer(found[keys[i]], np.uint8) for i in unique])[inverse]


def _near(
    dataset: Dataset, rows: pa.Table, groups: NDArray[np.int64], found: Neighbours, settings: DedupSettings
) -> dict[int, Verdict]:
    """The verdicts on near duplicates: groups that are there twice, then single images."""
    keys: list[str] = rows["key"].to_pylist()
    pairs = np.stack([found.first, found.second], axis=1)
    chunks = [pairs[start : start + _BATCH] for start in range(0, len(pairs), _BATCH)]
    known = [correlation(_thumbs(dataset, keys, chunk[:, 0]), _thumbs(dataset, keys, chunk[:, 1])) for chunk in chunks]
    scores = np.concatenate([np.empty(0, np.float32), *known])
    sure = scores >= settings.min_ncc
    of_pair = {
        (a, b): (bits, round(ncc, 4))
        for (a, b), bits, ncc in zip(
            pairs[sure].tolist(), found.bits[sure].tolist(), scores[sure].tolist(), strict=True
        )
    }
    volumes = pairs[sure][in_volumes(pairs[sure], groups)]
    slices: dict[int, Slices] = {}
    collect(slices, rows, set(groups[volumes].ravel().tolist()), kind=1)
    matches = ((int(groups[a]), keys[a], int(groups[b]), keys[b]) for a, b in volumes.tolist())
    at = {key: position for position, key in enumerate(keys)} if of_pair else {}
    voted = {row: at[key] for (_, row), key in vote(slices, matches, settings.vote).items()}
    losers = find_losers(closest_pairs(pairs[sure], scores[sure], groups), voted.keys())
    verdicts = {}
    for position, copied in sorted({**voted, **losers}.items()):
        stays = losers.get(copied, copied)
        bits, ncc = of_pair.get((min(position, stays), max(position, stays)), (0, 0.0))
        verdicts[position] = ("near_duplicate", keys[stays], bits, ncc)
    return verdicts


def _overlap(
    dataset: Dataset, rows: pa.Table, settings: DedupSettings, evaluation: Sequence[str]
) -> dict[int, Verdict]:
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


def _table(rows: pa.Table, verdicts: dict[int, Verdict]) -> pa.Table:
    nothing = ("", "", 0, 0.0)
    columns = list(zip(*(verdicts.get(i, nothing) for i in range(len(rows))), strict=True)) or [(), (), (), ()]
    table = rows.select(["key", "source", "modality"])
    table = table.append_column("keep", pa.array([i not in verdicts for i in range(len(rows))], pa.bool_()))
    table = table.append_column("reason", pa.array(columns[0], pa.string()))
    table = table.append_column("representative", pa.array(columns[1], pa.string()))
    table = table.append_column("bits", pa.array(columns[2], pa.int32()))
    return table.append_column("ncc", pa.array(columns[3], pa.float32()))
