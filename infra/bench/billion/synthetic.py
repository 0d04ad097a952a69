"""A dataset of any size without a byte on disk: an index that is computed, a store of zeros."""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from infra.estimate.constants import Constants
from shards.dataset.dataset import Dataset
from shards.decode.philox import fold
from shards.read.remote import RemoteReader
from shards.store.memory import MemoryStore
from shards.stream.digests import Digests
from shards.stream.plan import Plan
from shards.stream.rows import ShardRows
from shards.stream.stream import Stream

__all__ = ["Link", "SyntheticStream", "ZeroStore", "plan_of_size", "shard_of"]

_HEADER, _PAD = 512, 512
_SHARDS_KEPT = 64


@dataclass(slots=True, kw_only=True)
class Link:
    """What a request costs.

    Attributes:
        latency_seconds: Until its first byte.
        bytes_per_second: Shared by all requests; 0 for no limit.
    """

    latency_seconds: float = 0.0
    bytes_per_second: float = 0.0
    _free_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def carry(self, num_bytes: int) -> None:
        """Wait as long as a request for so many bytes takes."""
        with self._lock:
            now = time.monotonic()
            cost = num_bytes / self.bytes_per_second if self.bytes_per_second else 0.0
            self._free_at = max(self._free_at, now) + cost
            wait = self._free_at - now + self.latency_seconds
        if wait > 0:
            time.sleep(wait)


class ZeroStore(MemoryStore):
    """Objects of zeros; counts what is read.

    Args:
        link: What requests cost.
    """

    def __init__(self, link: Link) -> None:
        super().__init__("memory://zeros/")
        self.link = link
        self.requests = 0
        self._counting = threading.Lock()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Zeros."""
        return self.read_ranges(path, [(start, length)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:  # noqa: ARG002 - all objects are alike
        """Zeros, asked for side by side as object stores are."""
        with self._counting:
            self.requests += len(ranges)
        self.link.carry(sum(length for _, length in ranges))
        return [bytes(length) for _, length in ranges]


class ComputedRows:
    """Where the samples of shards lie: computed from the number of the shard.

    Args:
        per_shard: Samples of a shard.
        constants: Bytes of an image, on average, and of what surrounds it.
    """

    def __init__(self, per_shard: int, constants: Constants) -> None:
        self._per_shard = per_shard
        self._mean = int(constants.image_bytes)
        self._around = int(constants.sample_overhead_bytes) - _HEADER
        self._kept: OrderedDict[int, ShardRows] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, shards: Sequence[int]) -> list[ShardRows]:
        """The rows of these shards; those used last are kept."""
        with self._lock:
            found = []
            for shard in shards:
                if shard not in self._kept:
                    self._kept[shard] = self._compute(shard)
                self._kept.move_to_end(shard)
                found.append(self._kept[shard])
            while len(self._kept) > max(_SHARDS_KEPT, len(shards)):
                self._kept.popitem(last=False)
            return found

    def _compute(self, shard: int) -> ShardRows:
        """Images of half to one and a half times the mean size, each behind its header and padded like in a tar."""
        numbers = np.arange(self._per_shard, dtype=np.int64)
        drawn = fold(np.uint64(1), np.int64(shard), numbers) % np.uint64(1000)
        lengths = self._mean * (500 + drawn.astype(np.int64)) // 1000 // 8 * 8
        steps = _HEADER + -(-lengths // _PAD) * _PAD + self._around
        offsets = np.cumsum(steps) - steps + _HEADER
        crcs = np.array([_crc_of_zeros(length) for length in lengths.tolist()], np.int64)
        end = np.full(self._per_shard, offsets[-1] + lengths[-1])
        keys = np.array([f"zero-{shard:08x}{number:08x}" for number in numbers.tolist()], np.object_)
        return ShardRows(keys=keys, places=np.stack([offsets, lengths, crcs, end], axis=1))


def shard_of(key: str) -> str:
    """The part of a key that names its shard."""
    return key[:-8]


@functools.cache
def _crc_of_zeros(length: int) -> int:
    return int(google_crc32c.value(bytes(length)))


@functools.lru_cache(maxsize=1)
def plan_of_size(images: int, *, most_lanes: int, constants: Constants) -> Plan:
    """The plan of so many images in shards of the usual size."""
    per_shard = int(constants.shard_bytes / (constants.image_bytes + constants.sample_overhead_bytes))
    num_shards = -(-images // per_shard)
    return Plan(
        shards=[f"shards/zero/us/{number:08x}.tar" for number in range(num_shards)],
        sources=["zero"] * num_shards,
        modalities=["US"] * num_shards,
        counts=np.full(num_shards, per_shard, dtype=np.int64),
        digests=Digests(samples="", order="", num_samples=num_shards * per_shard, most_lanes=most_lanes),
        source=ComputedRows(per_shard, constants),
    )


class SyntheticStream(Stream):
    """A stream of a plan whose objects are zeros.

    Args:
        plan: The plan.
        link: What requests cost.
        more: As of `Stream`.
    """

    def __init__(self, plan: Plan, link: Link, **more: Any) -> None:
        store = ZeroStore(link)
        self._opened = Dataset(store.url, store, {}), plan
        super().__init__(store.url, **more)

    def _open(self, url: str | Path, *, dataset: str | None, accept_packing: bool) -> tuple[Dataset, Plan]:  # noqa: ARG002
        return self._opened

    @property
    def held_bytes(self) -> int:
        """What the reader's cache holds in memory."""
        reader = self._reader
        return reader.held_bytes if isinstance(reader, RemoteReader) else 0

    def read_nothing_ahead(self) -> None:
        """Read what the open windows need, and nothing more."""
        assert isinstance(self._reader, RemoteReader)
        self._reader.lookahead_bytes = 0
