"""The group vote: a volume or cine that is in the data twice goes as a whole.

Slices of a second copy (re-encoded, re-windowed) do not all pass the test for near duplicates; dropping those alone
that do would leave a volume with holes. So where at least half of the slices of each of two groups match, in order,
the later group is dropped entirely. Matches are confirmed near duplicates and equal pixels; "in order" is the longest
chain that runs the same way through both groups, or backwards through one (files that count slices from the other
end). Single images, and groups of fewer than three slices, have no order and take no part.

The earlier group is the one that the dataset holds already, else the first of the listing. Cost: one read of the
columns `group_id`, `raw_frame` and `pixel_sha256` of the staged samples, if any pair of groups comes into question.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from shards.dataset.dataset import Dataset

LEAST_SLICES: Final = 3
_COLUMNS = ["key", "group_id", "raw_frame", "pixel_sha256"]

Rank = tuple[int, int, int]
"""Committed (0) or staged (1), then unit and row."""

Match = tuple[int, str, int, str]
"""Code of the group and key of each of two images."""


@dataclass(slots=True)
class Slices:
    """The slices of one group: frame, rank, key and pixel hash of each."""

    rows: list[tuple[str, Rank, str, str]] = field(default_factory=list)

    @property
    def rank(self) -> Rank:
        """The rank of the first."""
        return min(rank for _, rank, *_ in self.rows)

    @property
    def in_order(self) -> bool:
        """Whether they have an order to be matched in."""
        return len(self.rows) >= LEAST_SLICES and all(frame for frame, *_ in self.rows)


def group_codes(groups: Sequence[str]) -> NDArray[np.int64]:
    """Group ids (hex) as numbers."""
    return np.array([int(group[:15] or "0", 16) for group in groups], np.int64)


def vote(slices: Mapping[int, Slices], matches: Iterable[Match], fraction: float) -> Mapping[tuple[int, int], str]:
    """Which samples go because their group does.

    Args:
        slices: The groups that the matches are of, by code.
        matches: Confirmed near duplicates.
        fraction: Share of both groups' slices that must match; 0 for no vote.

    Returns:
        Unit and row of each sample of a dropped group → key of the sample that it copies, or of the nearest one. Equal
        pixels are among them too.
    """
    near: dict[frozenset[int], set[tuple[str, str]]] = {}
    for code, key, other_code, other_key in matches:
        near.setdefault(frozenset((code, other_code)), set()).update(((key, other_key), (other_key, key)))
    for group in slices.values():
        group.rows.sort()
    gone: dict[int, dict[tuple[int, int], str]] = {}
    ranked = sorted((code for code in slices if slices[code].in_order), key=lambda code: slices[code].rank)
    for later, earlier in _candidates(ranked, near) if fraction > 0 else ():
        if slices[later].rank[0] == 0 or earlier in gone or later in gone:
            continue
        chain = _chain(slices[earlier], slices[later], near[frozenset((earlier, later))])
        if len(chain) >= max(LEAST_SLICES, fraction * max(len(slices[earlier].rows), len(slices[later].rows))):
            gone[later] = dict(_copies(slices[earlier], slices[later], chain))
    return {place: kept for copies in gone.values() for place, kept in copies.items()}


def _candidates(ranked: Sequence[int], pairs: Iterable[frozenset[int]]) -> list[tuple[int, int]]:
    """The pairs of groups that have any match, later group first, in the order in which they are judged."""
    place = {code: number for number, code in enumerate(ranked)}
    known = (sorted((place[code] for code in pair), reverse=True) for pair in pairs if pair <= place.keys())
    return [(ranked[later], ranked[earlier]) for later, earlier in sorted(known)]


def staged_slices(
    dataset: Dataset,
    staging: Staging,
    units: Sequence[UnitReport],
    codes: set[int],
    *,
    without: frozenset[str] = frozenset(),
) -> dict[int, Slices]:
    """The slices of some groups, committed ones that stay and staged ones."""
    found: dict[int, Slices] = {}
    if codes:
        there = _committed(dataset, codes)
        leaving = pc.is_in(there["key"], value_set=pa.array(sorted(without), pa.string()))
        collect(found, there.filter(pc.invert(leaving)), codes, kind=0)
    for unit in units if codes else ():
        if unit.kept:
            table = staging.table(unit, "index", _COLUMNS)
            collect(found, table, codes, kind=1, unit=unit.index)
    return found


def collect(found: dict[int, Slices], table: pa.Table, codes: set[int], *, kind: int, unit: int = 0) -> None:
    """Add the rows of some groups to their slices."""
    of_row = group_codes(table["group_id"].to_pylist())
    chosen = np.flatnonzero(np.isin(of_row, list(codes)))
    for number, row in zip(chosen.tolist(), table.select(_COLUMNS).take(pa.array(chosen)).to_pylist(), strict=True):
        entry = (row["raw_frame"], (kind, unit, number), row["key"], row["pixel_sha256"])
        found.setdefault(int(of_row[number]), Slices()).rows.append(entry)


def _committed(dataset: Dataset, codes: set[int]) -> pa.Table:
    return dataset.query(
        "SELECT key, group_id, raw_frame, pixel_sha256 FROM samples "
        "WHERE substr(group_id, 1, 15) IN (SELECT start FROM wanted) ORDER BY raw_path, raw_frame, key",
        wanted=pa.table({"start": pa.array(sorted(f"{code:015x}" for code in codes), pa.string())}),
    )


def _chain(first: Slices, second: Slices, near: set[tuple[str, str]]) -> list[tuple[int, int]]:
    """The longest chain of matches that runs one way through both groups: positions in them."""
    at: dict[str, list[int]] = {}
    partners: dict[str, list[str]] = {}
    for key, other in near:
        partners.setdefault(key, []).append(other)
    for position, (*_, key, digest) in enumerate(second.rows):
        at.setdefault(key, []).append(position)
        at.setdefault(digest, []).append(position)
    pairs = sorted(
        {
            (position, other)
            for position, (*_, key, digest) in enumerate(first.rows)
            for name in (digest, *partners.get(key, ()))
            for other in at.get(name, ())
        }
    )
    backwards = [(a, -b) for a, b in pairs]
    there, back = _increasing(pairs), _increasing(backwards)
    return there if len(there) >= len(back) else [(a, -b) for a, b in back]


def _increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """A longest run of pairs that increases strictly in both numbers (patience sorting)."""
    tops: list[int] = []
    ends: list[int] = []
    before: list[int] = []
    ordered = sorted(pairs, key=lambda pair: (pair[0], -pair[1]))
    for number, (_, value) in enumerate(ordered):
        place = bisect.bisect_left(tops, value)
        before.append(ends[place - 1] if place else -1)
        tops[place : place + 1] = [value]
        ends[place : place + 1] = [number]
    chain = []
    number = ends[-1] if ends else -1
    while number >= 0:
        chain.append(ordered[number])
        number = before[number]
    return chain[::-1]


def _copies(first: Slices, second: Slices, chain: Sequence[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], str]]:
    """Unit and row of each sample of the second group, with the sample of the first that stands where it stands."""
    places = sorted((b, a) for a, b in chain)
    for position, (_, (_, unit, row), *_) in enumerate(second.rows):
        nearest = min((abs(b - position), a) for b, a in places)[1]
        yield (unit, row), first.rows[nearest][2]
