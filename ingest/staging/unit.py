"""A unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.raw.items import RawItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A run of neighbouring raw files that one worker maps, or a part of one.

    Attributes:
        index: Counts from 0.
        items: The raw files.
        part: Which of its parts this is, from 0.
        num_parts: In how many parts the unit is mapped.
    """

    index: int
    items: Sequence[RawItem]
    part: int = 0
    num_parts: int = 1
