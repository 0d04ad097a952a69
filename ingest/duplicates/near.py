"""Near duplicates among the staged images, and between them and what the dataset holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ingest.duplicates.evaluation import EvaluationSet, Match, centre_thumbs, find_overlap, load_evaluation
from ingest.duplicates.pairs import BANDS, Hashes, as_hashes, bands_of, correlation, near_pairs
from ingest.duplicates.prints import Prints, Thumbs, scan_prints
from ingest.duplicates.volumes import LEAST_SLICES, group_codes, staged_slices, vote
from ingest.settings import DedupSettings
from ingest.staging.context import UnitReport
from ingest.staging.folder import read_staged
from ingest.staging.resolution import Drops, Resolution
from shards.dataset.dataset import Dataset

_COLUMNS = ("key", "group_id", "phash", "thumb")
_BATCH_PAIRS = 4096
_SURE_DISTANCE = 0.001
"""1 - NCC of what is a copy whatever else is close; re-encoding at quality 90 costs less in most pictures."""


def resolve_near(
    dataset: Dataset, staging: str, units: Sequence[UnitReport], exact: Resolution, settings: DedupSettings
) -> Resolution:
    """Add near duplicates to a resolution.

    Memory: 100 bytes a staged image, and as much for those committed ones that share a band with one of them.
    """
    staged = _staged(dataset, staging, units, exact)
    if not settings.near or not staged.keys:
        return exact
    committed = _committed(dataset, staged.hashes)
    both = Prints(
        keys=committed.keys + staged.keys,
        hashes=np.concatenate([committed.hashes, staged.hashes]),
        groups=np.concatenate([committed.groups, staged.groups]),
        places=np.concatenate([committed.places, staged.places]),
    )
    found = near_pairs(both.hashes, both.groups, radius=settings.radius_bits, bucket_cap=settings.bucket_cap)
    pairs = np.stack([found.first, found.second], axis=1)[found.second >= len(committed.keys)]
    scores = _scores(pairs, Thumbs(dataset, staging, both))
    pairs, scores = pairs[scores >= settings.min_ncc], scores[scores >= settings.min_ncc]
    of_volumes = pairs[in_volumes(pairs, both.groups)] if settings.vote else pairs[:0]
    codes = set(both.groups[of_volumes].ravel().tolist())
    matches = ((*_side(both, a), *_side(both, b)) for a, b in of_volumes.tolist())
    voted = vote(staged_slices(dataset, staging, units, codes), matches, settings.vote)
    gone = _positions(both, voted)
    losers = find_losers(closest_pairs(pairs, scores, both.groups), gone.keys())
    stays = {both.keys[loser]: both.keys[keeper] for loser, keeper in losers.items()}
    gone |= {loser: both.keys[keeper] for loser, keeper in losers.items()}
    drops = {unit: dict(rows) for unit, rows in exact.drops.items()}
    for position in sorted(gone):
        unit, row = (int(n) for n in both.places[position])
        drops.setdefault(unit, {})[row] = ("near_duplicate", stays.get(gone[position], gone[position]))
    return Resolution(version=exact.version, drops=drops, skipped_buckets=found.skipped_buckets)


def resolve_overlap(
    dataset: Dataset, staging: str, units: Sequence[UnitReport], before: Resolution, settings: DedupSettings
) -> Resolution:
    """Find the staged images that are in an evaluation set; drop them where the settings say so."""
    if not settings.evaluation:
        return before
    evaluation = load_evaluation(settings.evaluation)
    drops = {unit: dict(rows) for unit, rows in before.drops.items()}
    tasks: Counter[str] = Counter()
    for unit in units:
        for row, match in _unit_overlap(dataset, staging, unit, evaluation, settings).items():
            if row in before.dropped(unit.index):
                continue
            tasks[match.name.partition("/")[0]] += 1
            if settings.evaluation_policy == "exclude":
                drops.setdefault(unit.index, {})[row] = ("eval_overlap", match.name)
    return replace(before, drops=drops, overlap=dict(sorted(tasks.items())))


def _unit_overlap(
    dataset: Dataset, staging: str, unit: UnitReport, evaluation: EvaluationSet, settings: DedupSettings
) -> Mapping[int, Match]:
    if not unit.kept:
        return {}
    prints = read_staged(dataset.store, staging, unit.index, "prints")
    samples = read_staged(dataset.store, staging, unit.index, "samples", ["width", "height"])
    sizes = np.stack([samples["width"].to_numpy(), samples["height"].to_numpy()], axis=1).astype(np.int64)

    def whole(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([np.frombuffer(prints["thumb"][row].as_py(), np.uint8) for row in rows.tolist()])

    def centre(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return centre_thumbs(whole(rows), sizes[rows])

    views = [(as_hashes(prints["phash"].to_pylist()), whole), (as_hashes(prints["phash_centre"].to_pylist()), centre)]
    return find_overlap(evaluation, views, settings)


def _side(prints: Prints, position: int) -> tuple[int, str]:
    return int(prints.groups[position]), prints.keys[position]


def _positions(prints: Prints, voted: Mapping[tuple[int, int], str]) -> dict[int, str]:
    """Unit and row as positions."""
    if not voted:
        return {}
    units = np.unique([unit for unit, _ in voted])
    found = np.flatnonzero(np.isin(prints.places[:, 0], units))
    places = ((position, voted.get(tuple(prints.places[position].tolist()))) for position in found.tolist())
    return {position: key for position, key in places if key is not None}


def _scores(pairs: NDArray[np.int64], thumbs: Thumbs) -> NDArray[np.float32]:
    """How well the thumbnails of each pair correlate."""
    chunks = [pairs[start : start + _BATCH_PAIRS] for start in range(0, len(pairs), _BATCH_PAIRS)]
    found = [correlation(thumbs.of(chunk[:, 0]), thumbs.of(chunk[:, 1])) for chunk in chunks]
    return np.concatenate([np.empty(0, np.float32), *found])


def in_volumes(pairs: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pairs are worth a vote: those whose second image has enough others in its group."""
    if not len(pairs):
        return np.zeros(0, bool)
    codes, sizes = np.unique(groups, return_counts=True)
    return np.asarray(sizes[np.searchsorted(codes, groups[pairs[:, 1]])] >= LEAST_SLICES)


def closest_pairs(
    pairs: NDArray[np.int64], scores: NDArray[np.float32], groups: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The pairs that are copies, not neighbours of copies: frame 3 of a cine's copy is frame 3, not frame 2.

    Of the pairs of an image with several of one group only the best can drop it; and none can drop it in favour of an
    image that has a clearly closer partner in its group (a quarter of the distance 1 - NCC), such as the frame before
    the one at which the other copy ends.

    Args:
        pairs: `(P, 2)`: what may stay, what may be dropped for it.
        scores: `(P,)`: their correlation.
        groups: Group code of every position.

    Returns:
        Those that are left, in the order of the second, then the first.
    """
    both = np.concatenate([pairs, pairs[:, ::-1]])
    sides = np.stack([both[:, 1], groups[both[:, 0]]], axis=1)
    _, which = np.unique(sides, axis=0, return_inverse=True)
    best = np.full(which.max(initial=-1) + 1, -np.inf)
    np.maximum.at(best, which.reshape(-1), np.tile(scores, 2))
    of_second, of_first = best[which.reshape(-1)].reshape(2, -1)
    apart = np.maximum(_SURE_DISTANCE, 4 * (1 - of_first))
    found = pairs[(scores >= of_second) & (1 - scores <= apart)]
    return np.asarray(found[np.lexsort((found[:, 0], found[:, 1]))])


def find_losers(ordered: NDArray[np.int64], gone: Collection[int]) -> dict[int, int]:
    """Position of each image dropped on its own → position of the one that stays; `gone` are dropped already."""
    losers: dict[int, int] = {}
    for first, second in ordered.tolist():
        if not ({first, second} & losers.keys() or first in gone or second in gone):
            losers[second] = first
    return losers


def _staged(dataset: Dataset, staging: str, units: Sequence[UnitReport], exact: Resolution) -> Prints:
    keys: list[str] = []
    hashes, groups, places = [np.empty((0, 4), np.uint64)], [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)]
    for unit in units:
        if not unit.kept:
            continue
        table = read_staged(dataset.store, staging, unit.index, "prints", _COLUMNS[:3])
        dropped: Drops = exact.dropped(unit.index)
        rows = [row for row in range(len(table)) if row not in dropped]
        table = table.take(pa.array(rows, pa.int64()))
        keys += table["key"].to_pylist()
        hashes.append(as_hashes(table["phash"].to_pylist()))
        groups.append(group_codes(table["group_id"].to_pylist()))
        places.append(np.array([(unit.index, row) for row in rows], np.int64).reshape(-1, 2))
    return Prints(
        keys=keys, hashes=np.concatenate(hashes), groups=np.concatenate(groups), places=np.concatenate(places)
    )


def _committed(dataset: Dataset, staged: Hashes) -> Prints:
    """The committed fingerprints that share a band with a staged one."""
    wanted = [np.unique(bands_of(staged)[:, band]) for band in range(BANDS)]
    keys: list[str] = []
    hashes, groups = [np.empty((0, 4), np.uint64)], [np.empty(0, np.int64)]
    for batch in scan_prints(dataset, _COLUMNS[:3]):
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
    known = _in_index(dataset, keys)
    order = np.array(sorted((i for i in range(len(keys)) if keys[i] in known), key=keys.__getitem__), np.int64)
    return Prints(
        keys=[keys[i] for i in order],
        hashes=np.concatenate(hashes)[order],
        groups=np.concatenate(groups)[order],
        places=np.full((len(order), 2), -1, np.int64),
    )


def _in_index(dataset: Dataset, keys: Sequence[str]) -> set[str]:
    """Which keys the index holds: a job that died in its commit may have left fingerprints."""
    import pyarrow.dataset as ds

    from shards.dataset.query import scan

    table = dataset.table("index")
    if table is None or not keys:
        return set()
    return set(
        scan(table)
        .to_table(columns=["key"], filter=ds.field("key").isin(pa.array(keys, pa.string())))["key"]
        .to_pylist()
    )
