"""What a stream counts, read when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily

    from shards.stream.stats import StreamStats

__all__ = ["COUNTERS", "StreamFigures"]

COUNTERS: Mapping[str, tuple[str, str]] = {
    "biovfm_stream_batches": ("batches", "Batches given to the consumer."),
    "biovfm_stream_images": ("images", "Images given to the consumer."),
    "biovfm_stream_read_bytes": ("bytes_read", "Compressed bytes read."),
    "biovfm_stream_retries": ("retries", "Requests made again: failed, broken off, or with a wrong checksum."),
    "biovfm_stream_bad_samples": ("num_bad", "Samples that could not be used and were substituted."),
    "biovfm_stream_wait_seconds": ("wait_seconds", "Time the consumer waited for a batch."),
    "biovfm_stream_busy_seconds": ("busy_seconds", "Time the consumer worked between batches."),
    "biovfm_stream_blocked_seconds": ("blocked_seconds", "Time the scheduler waited for room."),
    "biovfm_stream_read_seconds": ("read_seconds", "Time spent reading, summed over threads."),
    "biovfm_stream_decode_seconds": ("decode_seconds", "Time spent decoding, summed over threads."),
}
"""Name without `_total` → field of `StreamStats` and help."""


class StreamFigures:
    """A collector: asks a stream for its counters whenever it is scraped.

    Args:
        registry: Where it registers.
        run: Name of the run's folder, or of what is streamed.
        rank: The stream's rank.
    """

    def __init__(self, registry: CollectorRegistry, *, run: str, rank: int) -> None:
        self._labels = [run, str(rank)]
        self._ask: Callable[[], StreamStats] | None = None
        registry.register(self)  # a collector is whatever has `collect`

    def follow(self, ask: Callable[[], StreamStats]) -> None:
        """From now on, report what `ask` returns."""
        self._ask = ask

    def collect(self) -> Iterable[CounterMetricFamily]:
        """One family per counter; nothing before there is a stream."""
        from prometheus_client.core import CounterMetricFamily

        if self._ask is None:
            return
        stats = self._ask()
        for name, (field, text) in COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=["run", "rank"])
            family.add_metric(self._labels, float(getattr(stats, field)))
            yield family
