"""The settle step: resolve duplicates and make the final shards, until nobody comes between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ingest.engines.base import Engine
from ingest.job.outgoing import STAYING, Leaving
from ingest.job.promote import Pack, Promoted, plan_packs, promote
from ingest.job.report import Progress, Watcher
from ingest.job.resolve import resolve
from ingest.staging.context import MapContext
from ingest.staging.folder import Staging
from ingest.staging.report import UnitReport
from ingest.staging.resolution import Resolution
from shards.dataset.dataset import Dataset

TRIES: Final = 5
"""Times a job resolves its duplicates again because another job has committed meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a job is about to commit.

    Attributes:
        resolution: What it drops.
        packs: Its final shards.
        promoted: Where they lie, by pack.
        crowded: Whether other jobs committed during each try: what they added last was not looked at.
    """

    resolution: Resolution
    packs: Sequence[Pack]
    promoted: Mapping[int, Promoted]
    crowded: bool = False


def settle(
    engine: Engine,
    dataset: Dataset,
    context: MapContext,
    staging: Staging,
    *,
    units: Sequence[UnitReport],
    tell: Watcher,
    leaving: Leaving = STAYING,
) -> Settled:
    """Resolve and promote, again where another job has committed meanwhile.

    After `TRIES` the last result stands. Exact duplicates of what came between are given up after the commit
    (`ingest.job.concede`); near duplicates of it stay, and the report says so.
    """
    for _ in range(TRIES):
        tell(Progress(stage="resolve"))
        secret = context.settings.secret
        resolution = resolve(dataset, staging, units, context.settings.dedup, secret, leaving=leaving)
        packs = plan_packs(staging, context, units, resolution)
        promoted = promote(engine, context, staging, units=units, packs=packs, tell=tell)
        if dataset.version() == resolution.version:
            return Settled(resolution=resolution, packs=packs, promoted=promoted)
    return Settled(resolution=resolution, packs=packs, promoted=promoted, crowded=True)
