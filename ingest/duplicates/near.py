"""Near duplicates: one rule, by which a job judges what it staged and an audit what a dataset holds.

The steps, in this order: pairs of images of different groups within the radius of their perceptual hashes; of these,
the ones whose thumbnails correlate; neighbours in a folder are set apart (`ingest.duplicates.neighbours`); volumes that
are there twice go as a whole (`ingest.duplicates.volumes`); of what is left an image goes if it is the copy, and no
mere neighbour of the copy, of one that stays. The images are looked at in the order in which they came
(`ingest.duplicates.prints`), and the earlier one stays. So all that is dropped resembles something that is kept, and
chains of small steps do not run away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.duplicates.evaluation import EvaluationSet, Match, centre_thumbs, find_overlap, load_evaluation
from ingest.duplicates.neighbours import belong_together
from ingest.duplicates.pairs import as_hashes, correlation, near_pairs
from ingest.duplicates.prints import Prints, StagedThumbs, committed_prints, staged_prints
from ingest.duplicates.volumes import LEAST_SLICES, Slices, staged_slices, vote
from ingest.settings import DedupSettings
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.resolution import Resolution
from shards.dataset.dataset import Dataset

_BATCH_PAIRS = 4096
_SURE_DISTANCE = 0.001
"""1 - NCC of what is a copy whatever else is close; re-encoding at quality 90 costs less in most pictures."""

Thumbs = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""Positions to `(P, 4096)` uint8 thumbnails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why an image goes.

    Attributes:
        stays: Key of the image that it is a copy of.
        bits: Distance of their hashes, 0 for a slice that goes with its volume.
        ncc: Correlation of their thumbnails, 0 likewise.
    """

    stays: str
    bits: int = 0
    ncc: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What is a near duplicate.

    Attributes:
        verdicts: Position of each image that goes → why.
        compared: Pairs of hashes that were compared.
        skipped_buckets: Buckets that were too crowded to search.
        kept_neighbours: Images that resemble another of their folder and are kept (`ingest.duplicates.neighbours`).
    """

    verdicts: Mapping[int, Verdict]
    compared: int
    skipped_buckets: int
    kept_neighbours: int = 0


def judge(
    prints: Prints, thumbs: Thumbs, slices_of: Callable[[set[int]], dict[int, Slices]], settings: DedupSettings
) -> Judgement:
    """Find the near duplicates among images.

    Args:
        prints: The images, in the order in which they came; those that cannot be dropped come first.
        thumbs: Their thumbnails.
        slices_of: The slices of some groups, by code; for the vote on whole volumes.
        settings: Radius, correlation, share of a vote and bucket cap.
    """
    found = near_pairs(prints.hashes, prints.groups, radius=settings.radius_bits, bucket_cap=settings.bucket_cap)
    pairs = np.stack([found.first, found.second], axis=1)
    can_go = prints.places[pairs[:, 1], 0] >= 0
    pairs, bits = pairs[can_go], found.bits[can_go]
    scores = _scores(pairs, thumbs)
    sure = scores >= settings.min_ncc
    pairs, bits, scores = pairs[sure], bits[sure], scores[sure]
    copies = ~belong_together(pairs, prints.standing) if settings.neighbours == "keep" else np.ones(len(pairs), bool)
    alike = set(pairs[~copies, 1].tolist())
    pairs, bits, scores = pairs[copies], bits[copies], scores[copies]
    of_volumes = pairs[_in_volumes(pairs, prints.groups)] if settings.vote else pairs[:0]
    matches = ((*_side(prints, a), *_side(prints, b)) for a, b in of_volumes.tolist())
    voted = _positions(prints, vote(slices_of(set(prints.groups[of_volumes].ravel().tolist())), matches, settings.vote))
    losers = find_losers(closest_pairs(pairs, scores, prints.groups), voted.keys())
    stays = {prints.keys[loser]: prints.keys[keeper] for loser, keeper in losers.items()}
    gone = {position: stays.get(key, key) for position, key in voted.items()}
    gone |= {loser: prints.keys[keeper] for loser, keeper in losers.items()}
    known = {
        (second, prints.keys[first]): (bit, round(ncc, 4))
        for (first, second), bit, ncc in zip(pairs.tolist(), bits.tolist(), scores.tolist(), strict=True)
        if second in gone
    }
    verdicts = {}
    for position, key in sorted(gone.items()):
        bit, ncc = known.get((position, key), (0, 0.0))
        verdicts[position] = Verdict(stays=key, bits=bit, ncc=ncc)
    return Judgement(
        verdicts=verdicts,
        compared=found.compared,
        skipped_buckets=found.skipped_buckets,
        kept_neighbours=len(alike - verdicts.keys()),
    )


def resolve_near(
    dataset: Dataset, staging: Staging, units: Sequence[UnitReport], exact: Resolution, settings: DedupSettings
) -> Resolution:
    """Add near duplicates to a resolution.

    Memory: 100 bytes per staged image, and as much for those committed ones that share a band with one of them.
    """
    staged = staged_prints(staging, units, exact)
    if not settings.near or not staged.keys:
        return exact
    both = committed_prints(dataset, staged.hashes, without=exact.outgoing) + staged
    found = judge(
        both,
        StagedThumbs(dataset, staging, units, both),
        lambda codes: staged_slices(dataset, staging, units, codes, without=exact.outgoing),
        settings,
    )
    drops = {unit: dict(rows) for unit, rows in exact.drops.items()}
    for position, verdict in found.verdicts.items():
        unit, row = (int(n) for n in both.places[position])
        drops.setdefault(unit, {})[row] = ("near_duplicate", verdict.stays)
    return replace(exact, drops=drops, skipped_buckets=found.skipped_buckets, kept_neighbours=found.kept_neighbours)


def resolve_overlap(
    staging: Staging, units: Sequence[UnitReport], before: Resolution, settings: DedupSettings
) -> Resolution:
    """Find the staged images that are in an evaluation set; drop them where the settings say so."""
    if not settings.evaluation:
        return before
    evaluation = load_evaluation(settings.evaluation)
    drops = {unit: dict(rows) for unit, rows in before.drops.items()}
    tasks: Counter[str] = Counter()
    for unit in units:
        for row, match in _unit_overlap(staging, unit, evaluation, settings).items():
            if row in before.dropped(unit.index):
                continue
            tasks[match.name.partition("/")[0]] += 1
            if settings.evaluation_policy == "exclude":
                drops.setdefault(unit.index, {})[row] = ("eval_overlap", match.name)
    return replace(before, drops=drops, overlap=dict(sorted(tasks.items())))


def _unit_overlap(
    staging: Staging, unit: UnitReport, evaluation: EvaluationSet, settings: DedupSettings
) -> Mapping[int, Match]:
    if not unit.kept:
        return {}
    prints = staging.table(unit, "fingerprints")
    samples = staging.table(unit, "index", ["width", "height"])
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
    found = [correlation(thumbs(chunk[:, 0]), thumbs(chunk[:, 1])) for chunk in chunks]
    return np.concatenate([np.empty(0, np.float32), *found])


def _in_volumes(pairs: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
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
