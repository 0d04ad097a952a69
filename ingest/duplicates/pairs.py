"""Pairs of 256-bit hashes within a small Hamming distance, without comparing all with all.

Two hashes that differ in at most 7 bits agree in at least one of their eight 32-bit bands (pigeonhole), so for each
band the hashes are sorted by its value and only equal ones are compared: exact to radius 7, measured recall above
that. Real images crowd some buckets. One that holds more than `bucket_cap` hashes is cut again, by the eight 28-bit
parts of the other 224 bits, one of which must agree for the same reason; what is crowded even then is left out and
reported. Hashes of one group are never compared.

Cost: eight sorts of N and the comparison of what shares a bucket; memory about 100 bytes a hash. Beyond one machine
the band and its value are the shuffle key: `parts` cuts every band into ranges of values that can be searched one by
one, anywhere, and the union of what they find is the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

BANDS = 8
EXACT_RADIUS = BANDS - 1

Hashes = NDArray[np.uint64]
"""`(N, 4)` uint64: 256-bit hashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Pairs within the radius.

    Attributes:
        first: `(P,)` int64, the smaller position of each pair.
        second: `(P,)` int64, the larger.
        bits: `(P,)` uint8, their distance.
        compared: Pairs that shared a bucket and were compared.
        skipped_buckets: Buckets left out, crowded even when they were cut again.
        skipped_rows: Hashes in them, summed over the bands.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    bits: NDArray[np.uint8]
    compared: int
    skipped_buckets: int
    skipped_rows: int


def as_hashes(rows: list[bytes]) -> Hashes:
    """32-byte hashes as `(N, 4)` uint64."""
    return np.frombuffer(b"".join(rows), np.uint64).reshape(-1, 4)


def bands_of(hashes: Hashes) -> NDArray[np.uint32]:
    """`(N, 8)` uint32: the bands of each hash."""
    return np.ascontiguousarray(hashes).view(np.uint32)


def distance(first: Hashes, second: Hashes) -> NDArray[np.uint16]:
    """Hamming distance, row by row."""
    return np.asarray(np.bitwise_count(first ^ second).sum(axis=-1, dtype=np.uint16))


def near_pairs(
    hashes: Hashes,
    groups: NDArray[np.int64],
    *,
    radius: int = 16,
    bucket_cap: int = 1000,
    parts: range | None = None,
    num_parts: int = 1,
) -> Neighbours:
    """All pairs of different groups that share a band and lie within the radius.

    Args:
        hashes: `(N, 4)` uint64.
        groups: `(N,)` int64, equal for what must not be paired.
        radius: Largest distance in bits.
        bucket_cap: Buckets with more hashes than this are cut again, then skipped.
        parts: Which of the `num_parts` ranges of band values to search; all without it.
        num_parts: Ranges that each band is cut into.
    """
    search = _Search(hashes=hashes, groups=groups, radius=radius, cap=bucket_cap)
    for band in range(BANDS):
        for part in parts if parts is not None else range(num_parts):
            search.band(band, part, num_parts)
    unique = np.unique(np.concatenate([np.empty((0, 3), np.int64), *search.found]), axis=0)
    return Neighbours(
        first=unique[:, 0],
        second=unique[:, 1],
        bits=unique[:, 2].astype(np.uint8),
        compared=search.compared,
        skipped_buckets=search.skipped_buckets,
        skipped_rows=search.skipped_rows,
    )


@dataclass(slots=True, kw_only=True)
class _Search:
    """A search under way; `found` holds `(P, 3)` arrays of first, second and bits."""

    hashes: Hashes
    groups: NDArray[np.int64]
    radius: int
    cap: int
    found: list[NDArray[np.int64]] = field(default_factory=list)
    compared: int = 0
    skipped_buckets: int = 0
    skipped_rows: int = 0

    def band(self, band: int, part: int, num_parts: int) -> None:
        """All buckets of one band whose value lies in one range."""
        values = np.ascontiguousarray(bands_of(self.hashes)[:, band])
        rows = np.arange(len(values), dtype=np.int64)
        if num_parts > 1:
            rows = np.flatnonzero((values.astype(np.uint64) * np.uint64(num_parts)) >> np.uint64(32) == part)
            values = values[rows]
        rows, sizes = self._buckets(rows, values)
        crowded = sizes > self.cap
        if crowded.any():
            self._cut_again(rows[np.repeat(crowded, sizes)], sizes[crowded], band)
        self._compare(rows[np.repeat(~crowded, sizes)], sizes[~crowded])

    def _buckets(self, rows: NDArray[np.int64], values: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows sorted by value, those alone with theirs left out, and the sizes of the runs."""
        order = np.argsort(values, kind="stable")
        rows, values = rows[order], values[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.empty(0, np.int64)
        sizes = np.diff(np.r_[starts, len(values)])
        shared = sizes > 1
        return rows[np.repeat(shared, sizes)], sizes[shared]

    def _cut_again(self, rows: NDArray[np.int64], sizes: NDArray[np.int64], band: int) -> None:
        """Crowded buckets, cut by the eight parts of what lies outside the band."""
        bucket = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
        parts = np.concatenate([_other_bits(self.hashes[chunk], band) for chunk in _chunks(rows, 1 << 17)])
        for column in range(BANDS):
            inner, counts = self._buckets(rows, (bucket << np.uint64(28)) | parts[:, column])
            crowded = counts > self.cap
            self.skipped_buckets += int(crowded.sum())
            self.skipped_rows += int(counts[crowded].sum())
            self._compare(inner[np.repeat(~crowded, counts)], counts[~crowded])

    def _compare(self, rows: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """All pairs inside runs of these sizes."""
        codes, owners = self.hashes[rows], self.groups[rows]
        left = np.repeat(sizes, sizes) - _within(sizes)
        alive = np.arange(len(rows))
        for step in range(1, int(sizes.max(initial=1))):
            alive = alive[left[alive] > step]
            for chunk in _chunks(alive, 1 << 22):
                self.compared += len(chunk)
                apart = chunk[owners[chunk] != owners[chunk + step]]
                near = apart[np.bitwise_count(codes[apart, 0] ^ codes[apart + step, 0]) <= self.radius]
                bits = distance(codes[near], codes[near + step])
                near, bits = near[bits <= self.radius], bits[bits <= self.radius]
                ends = np.sort(np.stack([rows[near], rows[near + step]], axis=1), axis=1)
                if len(ends):
                    self.found.append(np.column_stack([ends, bits.astype(np.int64)]))


def _chunks(values: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _other_bits(hashes: Hashes, band: int) -> NDArray[np.uint64]:
    """`(N, 8)`: the 224 bits outside a band, as eight numbers of 28 bits."""
    data = np.delete(bands_of(hashes), band, axis=1)
    bits = np.unpackbits(np.ascontiguousarray(data).view(np.uint8), axis=1).reshape(len(hashes), BANDS, 28)
    return np.asarray(bits @ (np.uint64(1) << np.arange(28, dtype=np.uint64)))


def _within(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … inside each run of these lengths."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Normalised cross-correlation of `(P, n)` thumbnails, row by row; 0 where one is constant."""
    a = first.astype(np.float32)
    b = second.astype(np.float32)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.maximum(scale, 1e-6))
