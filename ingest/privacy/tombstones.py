"""Tombstones: keyed marks by which withdrawn images are known again, while nothing of them is kept.

A mark is a keyed hash (BLAKE2b under the user's secret) of one of these:

- `pixels`: an image's pixel hash. The same pixels are never taken again, whatever source or person they are said to
  be of: they are the withdrawn picture.
- `origin`: source, raw path and frame (as the tables name them). By it an image is known again where another version
  of the pipeline gives it other pixels.
- `group`: a withdrawn group. What comes of this patient later is not taken either. A near duplicate of a withdrawn
  image that belongs to another group is somebody else's and may come.
- `asked`: what a person asked for, so that a request that is repeated is known to be done.

Whoever has the tables without the secret learns from a mark neither key nor hash nor group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from pydantic import SecretStr

from shards.dataset.dataset import Dataset

if TYPE_CHECKING:
    import pyarrow as pa

Kind = Literal["pixels", "origin", "group", "asked"]
WITHDRAWN: Final = "withdrawn"
"""The reason of a reject that a tombstone knows."""

PREFIX: Final = "withdraw-"
"""How the names of withdrawals, and of their commits, begin."""

_BYTES: Final = 16


class Marker:
    """Makes marks.

    Args:
        secret: The user's secret; not empty.
    """

    def __init__(self, secret: SecretStr) -> None:
        self._key = hashlib.blake2b(secret.get_secret_value().encode(), digest_size=32).digest()

    def pixels(self, pixel_sha256: str) -> str:
        """The mark of an image's pixels; 32 hex digits."""
        return self._mark("pixels", pixel_sha256)

    def origin(self, source: str, raw_path: str, raw_frame: str) -> str:
        """The mark of a place in the raw data, named as in the tables."""
        return self._mark("origin", f"{source}\0{raw_path}\0{raw_frame}")

    def group(self, source: str, group_id: str) -> str:
        """The mark of a group, by its pseudonym."""
        return self._mark("group", f"{source}\0{group_id}")

    def asked(self, kind: str, text: str, within: str) -> str:
        """The mark of a request: what kind of thing was asked for, what it was, within which sources."""
        return self._mark("asked", f"{kind}\0{text}\0{within}")

    def _mark(self, kind: Kind, text: str) -> str:
        data = text.encode("utf-8", "surrogateescape")
        person = f"tombstone {kind}".encode()[:16]
        return hashlib.blake2b(data, digest_size=_BYTES, key=self._key, person=person).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstones:
    """The marks of a dataset, and what makes marks to compare with them.

    Attributes:
        marker: Makes marks.
        marks: By kind.
    """

    marker: Marker
    marks: Mapping[str, frozenset[str]]

    def of_samples(
        self, sources: Iterable[str], hashes: Iterable[str], groups: Iterable[str], places: Iterable[tuple[str, str]]
    ) -> list[bool]:
        """Which samples are withdrawn.

        Args:
            sources: Source of each.
            hashes: Pixel SHA-256 (hex) of each.
            groups: Group pseudonym of each.
            places: Raw path and frame of each.
        """
        return [
            self.marker.pixels(digest) in self.marks["pixels"]
            or self.marker.group(source, group) in self.marks["group"]
            or self.marker.origin(source, *place) in self.marks["origin"]
            for source, digest, group, place in zip(sources, hashes, groups, places, strict=True)
        ]

    def of_table(self, rows: pa.Table) -> list[bool]:
        """Which rows of an index (`COLUMNS`) are withdrawn."""
        source, digest, group, path, frame = (rows[name].to_pylist() for name in COLUMNS)
        return self.of_samples(source, digest, group, zip(path, frame, strict=True))


COLUMNS: Final = ("source", "pixel_sha256", "group_id", "raw_path", "raw_frame")
"""The index columns that tombstones look at."""


def has_tombstones(dataset: Dataset) -> bool:
    """Whether anything was ever withdrawn from a dataset."""
    return dataset.table("withdrawn") is not None


def tombstones_of(dataset: Dataset, secret: SecretStr) -> Tombstones | None:
    """The tombstones of a dataset; None where nothing was ever withdrawn.

    Args:
        dataset: The dataset.
        secret: Its secret; the caller has compared it with the dataset.
    """
    if not has_tombstones(dataset):
        return None
    rows = dataset.query("SELECT kind, mark FROM withdrawn")
    return Tombstones(marker=Marker(secret), marks=_by_kind(rows["kind"].to_pylist(), rows["mark"].to_pylist()))


def _by_kind(kinds: Sequence[str], marks: Sequence[str]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {"pixels": set(), "origin": set(), "group": set(), "asked": set()}
    for kind, mark in zip(kinds, marks, strict=True):
        found.setdefault(kind, set()).add(mark)
    return {kind: frozenset(values) for kind, values in found.items()}
