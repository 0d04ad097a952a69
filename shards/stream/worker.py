"""What a worker thread does with a chunk of samples: read, check, decode, and replace what is bad."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from shards.decode import Crops, Decoder, Status
from shards.decode.base import Blob
from shards.errors import ShardError
from shards.read.locations import Location, Locations, ShardReader
from shards.stream.columns import PlanColumns
from shards.stream.order import Order
from shards.stream.plan import Plan
from shards.stream.stats import BadSample, StreamStats

OnBad = Literal["substitute", "raise"]
MAX_SUBSTITUTES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What came of a chunk of samples.

    Attributes:
        keys: Sample keys.
        blobs: Compressed images.
        substituted: The slots (inside the chunk) that hold a substitute.
        positions: `(n,)` int64, the samples' numbers in the own columns; empty where none are asked for.
    """

    keys: list[str]
    blobs: list[Blob]
    substituted: list[int]
    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWorker:
    """Reads and decodes chunks; one object serves all threads.

    Attributes:
        plan: The plan.
        reader: Reads compressed samples.
        decoder: Decodes them; None leaves them compressed.
        crops: The groups of crops.
        on_bad: What to do with a bad sample.
        stats: Where to count.
        columns: Columns of the user's own; None where none are asked for.
    """

    plan: Plan
    reader: ShardReader
    decoder: Decoder | None
    crops: tuple[Crops, ...]
    on_bad: OnBad
    stats: StreamStats
    columns: PlanColumns | None = None

    def locations(self, order: Order, index: int, *, rank: int, world_size: int) -> Locations:
        """Where the samples of one rank's part of a batch lie."""
        shards, rows = order.batch(index, rank=rank, world_size=world_size)
        return self._locate(shards, rows)

    def run(
        self,
        order: Order,
        index: int,
        *,
        first_slot: int,
        locations: Locations,
        seeds: NDArray[np.uint64],
        out: tuple[NDArray[np.uint8], ...],
    ) -> Chunk:
        """Fill the slots of a chunk.

        Args:
            order: The epoch's order, which names the substitutes.
            index: The global batch.
            first_slot: The slot of the chunk's first sample in the global batch.
            locations: The chunk's samples.
            seeds: `(n,)` uint64, their random keys.
            out: One array a group of crops, `(n, num, size_px, size_px, C)`.

        Raises:
            ShardError: A sample is bad and `on_bad` is `raise`, or no good substitute is found.
        """
        blobs, bad = self._fill(locations, seeds, out)
        keys = locations.keys.tolist()
        positions = self._positions(locations)
        for slot in bad:
            for attempt in range(MAX_SUBSTITUTES):
                shard, row = order.substitute(index, first_slot + slot, attempt)
                stand_in = self._locate(np.array([shard]), np.array([row]))
                one = slice(slot, slot + 1)
                (blob,), still_bad = self._fill(stand_in, seeds[one], tuple(view[one] for view in out))
                if not still_bad:
                    keys[slot], blobs[slot] = stand_in[0].key, blob
                    positions[slot : slot + 1] = self._positions(stand_in)
                    break
            else:
                raise ShardError(
                    f"{MAX_SUBSTITUTES} samples in a row are bad, last {stand_in[0].key} in {stand_in[0].shard}",
                    hint="run `biovfm verify --deep` on the dataset",
                )
        return Chunk(keys=keys, blobs=blobs, substituted=bad, positions=positions)

    def _positions(self, locations: Locations) -> NDArray[np.int64]:
        if self.columns is None:
            return locations.rows[:0]
        return self.columns.positions(locations.shards, locations.rows)

    def _fill(
        self, locations: Locations, seeds: NDArray[np.uint64], out: tuple[NDArray[np.uint8], ...]
    ) -> tuple[list[Blob], list[int]]:
        started = time.perf_counter()
        blobs: list[Blob] = []
        reasons: dict[int, str] = {}
        for slot, item in enumerate(self.reader.read(locations)):
            if isinstance(item, ShardError):
                reasons[slot] = str(item)
            blobs.append(b"" if isinstance(item, ShardError) else item)
        middle = time.perf_counter()
        if self.decoder is not None:
            for slot, status in enumerate(self.decoder.decode(blobs, seeds, self.crops, out).tolist()):
                if status != Status.DEFERRED:
                    blobs[slot] = b""
                    if status != Status.OK:
                        reasons.setdefault(slot, Status(status).name.lower())
        self.stats.worked(read=middle - started, decode=time.perf_counter() - middle)
        for slot, reason in reasons.items():
            self._report(locations[slot], reason)
        return blobs, sorted(reasons)

    def _report(self, location: Location, reason: str) -> None:
        if self.on_bad == "raise":
            raise ShardError(
                f"{location.key} in {location.shard} at offset {location.offset}: {reason}",
                hint="run `biovfm verify --deep`, or stream with on_bad='substitute'",
            )
        self.stats.bad(BadSample(key=location.key, shard=location.shard, offset=location.offset, reason=reason))

    def _locate(self, shards: NDArray[np.int64], rows: NDArray[np.int64]) -> Locations:
        by_shard = np.argsort(shards, kind="stable")
        numbers, starts = np.unique(shards[by_shard], return_index=True)
        keys = np.empty(len(shards), np.object_)
        places = np.empty((len(shards), 4), np.int64)
        tables = self.plan.source.rows(numbers.tolist())
        for table, slots in zip(tables, np.split(by_shard, starts[1:]), strict=True):
            wanted = rows[slots]
            keys[slots], places[slots] = table.keys[wanted], table.places[wanted]
        return Locations(paths=self.plan.shards, shards=shards, keys=keys, places=places, rows=rows)
