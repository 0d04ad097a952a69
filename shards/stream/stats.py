"""What the stream counts about itself."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

BAD_SAMPLES_LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class BadSample:
    """A sample that could not be used: key, shard path, first byte in it, and what is wrong."""

    key: str
    shard: str
    offset: int
    reason: str


@dataclass(slots=True, kw_only=True)
class StreamStats:
    """Counters since a stream was made.

    Attributes:
        batches: Batches given to the consumer.
        images: Images given to the consumer.
        bytes_read: Compressed bytes read.
        retries: Requests made again, because they failed, broke or brought bytes that fail their checksum. Large: the
            storage is unwell; its waits are in `read_seconds`.
        busy_seconds: Time the consumer spent between batches; its own work.
        wait_seconds: Time the consumer waited for a batch. Large: the stream is the bottleneck.
        blocked_seconds: Time the scheduler waited for room. Large: the consumer is the bottleneck.
        read_seconds: Time spent reading, summed over threads.
        decode_seconds: Time spent decoding, summed over threads.
        num_bad: Bad samples met.
        bad_samples: The first of them.
    """

    batches: int = 0
    images: int = 0
    bytes_read: int = 0
    retries: int = 0
    busy_seconds: float = 0.0
    wait_seconds: float = 0.0
    blocked_seconds: float = 0.0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    num_bad: int = 0
    bad_samples: list[BadSample] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def stall_share(self) -> float:
        """Share of the consumer's time that it waited for data, 0 to 1."""
        total = self.wait_seconds + self.busy_seconds
        return self.wait_seconds / total if total else 0.0

    def consumed(self, images: int, *, busy: float, waited: float) -> None:
        """Count a batch; the first one's wait is start-up, not stall, and is left out."""
        if self.batches:
            self.busy_seconds += busy
            self.wait_seconds += waited
        self.batches += 1
        self.images += images

    def worked(self, *, read: float, decode: float) -> None:
        """Count a chunk's work (called by the workers)."""
        with self._lock:
            self.read_seconds += read
            self.decode_seconds += decode

    def bad(self, sample: BadSample) -> None:
        """Count and list a bad sample (called by the workers)."""
        with self._lock:
            self.num_bad += 1
            if len(self.bad_samples) < BAD_SAMPLES_LISTED:
                self.bad_samples.append(sample)
