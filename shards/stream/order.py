"""The order of an epoch: a pure function of (plan, seed, epoch, global batch), the same on any topology.

How it is made:

1. The shards are permuted by (seed, epoch); their selected rows, one shard after the other, are the *sequence*.
2. The sequence is cut into `num_lanes` lanes of equal length.
3. Inside a lane, samples are shuffled in windows of `window` samples. The windows of different lanes are staggered,
   so that they do not all open at the same batch.
4. Global batch `b` takes an equal, contiguous share from every lane, lane by lane. A rank takes an equal, contiguous
   part of the batch: whole lanes, where its number divides, and so its own shards and nobody else's.

Cost: O(shards) memory and O(shards log shards) time an epoch; O(batch) a batch, wherever in the epoch it is, so
resuming is computing. Permutations come from Philox keyed by seed, epoch, lane and window: there is no state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from shards.decode.philox import fold, permutation, words
from shards.errors import ConfigError

Last = Literal["drop", "pad"]


class Order(Protocol):
    """What the stream asks of an order; see `EpochOrder`."""

    num_batches: int

    def batch(self, index: int, *, rank: int = 0, world_size: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of one rank's part of a global batch."""
        ...

    def seeds(self, index: int, *, rank: int = 0, world_size: int = 1) -> NDArray[np.uint64]:
        """The random keys of one rank's slots."""
        ...

    def substitute(self, index: int, slot: int, attempt: int) -> tuple[int, int]:
        """The sample that stands in for a bad one."""
        ...


MAX_LANES = 64
"""Most lanes unless a lock says otherwise; all orders of earlier releases have at most so many."""
_SHARDS, _WINDOWS, _SAMPLES, _SUBSTITUTES = range(4)


def default_lanes(global_batch: int, most: int = MAX_LANES) -> int:
    """The largest divisor of the global batch up to `most`; where that is below 16, the smallest one above.

    A rank that has a lane of its own reads its own shards alone; ranks that share a lane read its windows in common.
    Every lane holds a window open, so that many lanes cost a small run memory and many reads side by side.
    The search takes as many steps as `most`, and where the batch has no such divisor, as its square root.

    Args:
        global_batch: Samples of a batch over all ranks.
        most: As many as the largest world size that the run may have; 64 where nothing else is said.
    """
    below = next(lanes for lanes in range(min(most, global_batch), 0, -1) if global_batch % lanes == 0)
    if below >= min(16, global_batch):
        return below
    root = math.isqrt(global_batch)  # of two divisors whose product is the batch, one is at most its root
    small = next((lanes for lanes in range(most + 1, root + 1) if global_batch % lanes == 0), 0)
    others = (divmod(global_batch, number) for number in range(min(most, root), 0, -1))
    return small or next(lanes for lanes, rest in others if not rest and lanes > most)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSettings:
    """What decides the order, besides the plan.

    Attributes:
        seed: Seed of all permutations.
        global_batch: Samples of a batch over all ranks.
        num_lanes: Lanes; a divisor of the global batch.
        window: Samples that are shuffled with each other inside a lane.
        last: `drop` leaves out the samples that fill no batch; `pad` repeats samples from the start of the epoch's
            sequence to fill the last one. Either way every rank has the same number of batches.
    """

    seed: int = 0
    global_batch: int = 256
    num_lanes: int = 0
    window: int = 256
    last: Last = "drop"

    def __post_init__(self) -> None:
        if self.global_batch < 1 or self.window < 1:
            raise ConfigError(
                f"global batch {self.global_batch} and window {self.window} must be at least 1", hint="raise them"
            )
        if not self.num_lanes:
            object.__setattr__(self, "num_lanes", default_lanes(self.global_batch))
        if self.global_batch % self.num_lanes:
            raise ConfigError(
                f"{self.num_lanes} lanes do not divide the global batch {self.global_batch}",
                hint=f"take {default_lanes(self.global_batch)} lanes, or leave the number out",
            )


class EpochOrder:
    """The order of one epoch.

    Args:
        counts: `(S,)` int64, selected samples of each shard of the plan.
        settings: What decides the order.
        epoch: The epoch, from 0.

    Attributes:
        num_batches: Global batches of the epoch, the same for every rank.

    Raises:
        ConfigError: There are fewer samples than a batch needs and none may be repeated.
    """

    def __init__(self, counts: NDArray[np.int64], settings: OrderSettings, epoch: int) -> None:
        self.settings = settings
        self.epoch = epoch
        self.num_samples = int(counts.sum())
        whole, rest = divmod(self.num_samples, settings.global_batch)
        self.num_batches = whole + (1 if rest and settings.last == "pad" else 0)
        if not self.num_batches:
            raise ConfigError(
                f"{self.num_samples} samples are fewer than the global batch {settings.global_batch}",
                hint="take a smaller global batch, or let a stream pad the last one (`biovfm stream --last pad`)",
            )
        self._share = settings.global_batch // settings.num_lanes
        self._lane_length = self.num_batches * self._share
        self._shards = permutation(len(counts), _key(fold(_seed(settings), epoch, _SHARDS)))
        self._ends = np.cumsum(counts[self._shards])
        self._window_key = fold(_seed(settings), epoch, _WINDOWS)
        self._sample_key = fold(_seed(settings), epoch, _SAMPLES)
        self._open = np.full(settings.num_lanes, -1, dtype=np.int64)
        self._orders = np.zeros((settings.num_lanes, min(settings.window, self._lane_length)), dtype=np.int32)

    def batch(self, index: int, *, rank: int = 0, world_size: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of one rank's part of a global batch, in order.

        Args:
            index: The global batch, `0 <= index < num_batches`.
            rank: This rank.
            world_size: Ranks; must divide the global batch.

        Returns:
            Shard numbers of the plan and selected rows in these shards, `(global_batch / world_size,)` int64 each.
        """
        slots = rank_slots(self.settings.global_batch, rank=rank, world_size=world_size)
        return self.locate(self._positions(index, slots))

    def locate_shuffled(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shard numbers and rows of shuffled places of an epoch that has a single lane."""
        assert self.settings.num_lanes == 1
        return self.locate(self._shuffled(np.zeros_like(places), places))

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shard numbers and rows of positions in the epoch's sequence (taken modulo its length)."""
        wrapped = positions % self.num_samples
        place = np.searchsorted(self._ends, wrapped, side="right")
        starts = np.where(place > 0, self._ends[place - 1], 0)
        return self._shards[place], wrapped - starts

    def seeds(self, index: int, *, rank: int = 0, world_size: int = 1) -> NDArray[np.uint64]:
        """The random keys of one rank's slots of a batch, `(global_batch / world_size,)` uint64.

        A slot keeps its key on any topology; crops, flips and masks are drawn from it.
        """
        slots = rank_slots(self.settings.global_batch, rank=rank, world_size=world_size)
        return fold(
            self._sample_key, np.asarray(slots, dtype=np.uint64) + np.uint64(index * self.settings.global_batch)
        )

    def substitute(self, index: int, slot: int, attempt: int) -> tuple[int, int]:
        """The sample that stands in for a bad one.

        Args:
            index: The global batch.
            slot: The slot in the global batch, `0 <= slot < global_batch`.
            attempt: 0 for the first substitute, 1 if that is bad too, and so on.

        Returns:
            Shard number and row, uniform over the epoch's samples; the same on any topology.
        """
        key = fold(_seed(self.settings), self.epoch, _SUBSTITUTES, index * self.settings.global_batch + slot, attempt)
        shards, rows = self.locate(np.asarray([int(key) % self.num_samples], dtype=np.int64))
        return int(shards[0]), int(rows[0])

    def _positions(self, index: int, slots: range) -> NDArray[np.int64]:
        """Positions in the sequence of these slots of a batch."""
        lanes, places = np.divmod(np.arange(slots.start, slots.stop, dtype=np.int64), self._share)
        return lanes * self._lane_length + self._shuffled(lanes, index * self._share + places)

    def _shuffled(self, lanes: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places inside lanes after the shuffle: each is sent through the permutation of its window."""
        size = self.settings.window
        stagger = lanes * size // self.settings.num_lanes
        windows = (places + stagger) // size
        starts = np.maximum(windows * size - stagger, 0)
        sizes = np.minimum((windows + 1) * size - stagger, self._lane_length) - starts
        shuffled = np.empty_like(places)
        left = np.arange(len(places))
        while len(left):  # once more for every window that a lane comes to within these places
            ready = self._open[lanes[left]] == windows[left]
            here, left = left[ready], left[~ready]
            shuffled[here] = self._orders[lanes[here], places[here] - starts[here]]
            _, first = np.unique(lanes[left], return_index=True)
            self._open_windows(lanes[left][first], windows[left][first], sizes[left][first])
        found: NDArray[np.int64] = starts + shuffled
        return found

    def _open_windows(self, lanes: NDArray[np.int64], windows: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Make the permutations of windows, one a lane, which are kept until the lane comes to another window."""
        if not len(lanes):
            return
        drawn = words(fold(self._window_key, lanes, windows), int(sizes.max()))
        for lane, size, row in zip(lanes.tolist(), sizes.tolist(), drawn, strict=True):
            self._orders[lane, :size] = np.argsort(row[:size], kind="stable")
        self._open[lanes] = windows


def _seed(settings: OrderSettings) -> np.uint64:
    return np.uint64(settings.seed % 2**64)


def _key(folded: NDArray[np.uint64]) -> np.uint64:
    return np.uint64(folded)


def rank_slots(global_batch: int, *, rank: int, world_size: int) -> range:
    """The slots of a global batch that belong to a rank.

    Raises:
        ConfigError: The ranks do not divide the batch.
    """
    if world_size < 1 or global_batch % world_size:
        raise ConfigError(
            f"{world_size} ranks do not divide the global batch {global_batch}",
            hint=f"take a global batch that is a multiple of {world_size}",
        )
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank {rank} is not below the world size {world_size}", hint="check RANK and WORLD_SIZE")
    share = global_batch // world_size
    return range(rank * share, (rank + 1) * share)
