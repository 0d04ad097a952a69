"""What a job drops after its units are mapped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Drops = dict[int, tuple[str, str]]
"""Row of a unit's samples → `(reason, detail)`."""
WITHHELD: Final = ("", "")
"""Why a sample of a pending file is dropped: it is no reject, another run reads the file again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a job drops after the map step.

    Attributes:
        version: The index version that was looked at.
        drops: Unit → its dropped rows.
        skipped_buckets: Buckets of near-duplicate candidates that were too crowded to search.
        kept_neighbours: Images that resemble another of their folder and are kept.
        overlap: Evaluation task → staged images that match one of its images.
        outgoing: Keys of the committed samples that leave with the job (`ingest.job.outgoing`).
    """

    version: int
    drops: Mapping[int, Drops] = field(default_factory=dict)
    skipped_buckets: int = 0
    kept_neighbours: int = 0
    overlap: Mapping[str, int] = field(default_factory=dict)
    outgoing: frozenset[str] = frozenset()

    def dropped(self, unit: int) -> Drops:
        """The dropped rows of a unit."""
        return self.drops.get(unit, {})

    def rejected(self, unit: int) -> Drops:
        """Those of them that are rejects."""
        return {row: drop for row, drop in self.dropped(unit).items() if drop != WITHHELD}
