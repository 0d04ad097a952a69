"""A unit of work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.raw.items import RawItem


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A run of neighbouring raw files that one worker maps; `index` counts from 0."""

    index: int
    items: Sequence[RawItem]
