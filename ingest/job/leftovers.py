"""What a listing passes over: counted by kind, with the first examples of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

NUM_EXAMPLES: Final = 3


@dataclass(slots=True)
class Leftovers:
    """Files that are not read.

    Attributes:
        counts: By kind (`ingest.job.list.Listing.ignored`).
        examples: The first paths of each kind.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: str) -> None:
        """Another file of a kind."""
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < NUM_EXAMPLES:
            shown.append(path)
