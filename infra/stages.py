"""How long each stage of an ingest job takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingest.job.run import Progress


@dataclass(slots=True)
class StageClock:
    """Measures how long each stage of a job takes; give it to `run_job` as its watcher.

    Attributes:
        seconds: Stage → seconds, in the order of the stages.
        tell: Told whatever the clock is told.
    """

    tell: Callable[[Progress], None]
    seconds: dict[str, float] = field(default_factory=dict)
    _stage: str = ""
    _since: float = 0.0

    def __call__(self, now: Progress) -> None:
        """Another piece of progress."""
        if now.stage != self._stage:
            self.stop()
            self._stage, self._since = now.stage, time.monotonic()
        self.tell(now)

    def stop(self) -> None:
        """The last stage has ended."""
        if self._stage:
            took = time.monotonic() - self._since
            self.seconds[self._stage] = round(self.seconds.get(self._stage, 0.0) + took, 3)
        self._stage = ""
