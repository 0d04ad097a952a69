"""Measuring a run: images a second, CPU, memory."""

from __future__ import annotations

import resource
import time
from typing import Any


class Meter:
    """Measures from its making on; the first batch is start-up and is told apart."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._first: float | None = None
        self._cpu = 0.0
        self._counted = 0
        self.images = 0
        self._last = self._started

    def batch(self, images: int) -> None:
        """Count a batch."""
        self._last = time.perf_counter()
        self.images += images
        if self._first is None:
            self._first = self._last
            self._cpu = time.process_time()
        else:
            self._counted += images

    @property
    def images_per_second(self) -> float | None:
        """Images per second since the first batch; None until a second one came, since there is no rate before it."""
        seconds = self._last - (self._first or self._last)
        return self._counted / seconds if seconds else None

    @property
    def rate(self) -> str:
        """`images_per_second` for people, empty where there is none."""
        rate = self.images_per_second
        return "" if rate is None else f"{rate:,.0f} images/s"

    def result(self) -> dict[str, Any]:
        """The figures: seconds, images/s, CPU seconds per 1000 images (this process), peak memory in MB."""
        cpu = time.process_time() - self._cpu
        rate = self.images_per_second
        return {
            "images": self.images,
            "seconds": round(self._last - self._started, 3),
            "first_batch_seconds": round((self._first or self._last) - self._started, 3),
            "images_per_second": None if rate is None else round(rate, 1),
            "cpu_seconds_per_1000_images": round(1000 * cpu / self._counted, 4) if self._counted else None,
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
