"""What became of a unit: its counts, and the checksums of what it staged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitReport:
    """What became of a unit.

    Attributes:
        index: The unit.
        files: Raw files read to their end, or found to be broken.
        pending: Raw files that could not be read now.
        items: What came of the files that were read: images, and files (or the rest of one) that are broken.
        kept: Images staged, those of pending files included.
        rejected: Rejected images and files, by reason.
        shards: Staged tar → number of samples in it and its SHA-256 (hex), in the order they were begun.
        tables: Staged table → its SHA-256 (hex).
        withheld: Rows of the samples that came out of pending files before these broke off; they are not committed.
    """

    index: int
    files: int
    items: int
    kept: int
    rejected: Mapping[str, int]
    shards: Mapping[str, tuple[int, str]]
    tables: Mapping[str, str] = field(default_factory=dict)
    pending: int = 0
    withheld: tuple[int, ...] = ()

    def to_values(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """A report out of its JSON values."""
        shards = {name: (count, sha256) for name, (count, sha256) in values["shards"].items()}
        return cls(**{**values, "shards": shards, "withheld": tuple(values["withheld"])})
