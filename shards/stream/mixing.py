"""Mixing by weight: every prefix of the stream holds the exact proportions, and any position is computed in O(1).

The schedule is a closed form. A binary tree has the groups as leaves; a node that has handed out `n` samples has given
`floor(n p + 1/2)` of them to its left child, `p` being the left child's share of the weight. Both children's counts
grow by whole steps, so each sample goes to exactly one group, and after any number of samples no group is further from
its due than half a sample for each level of the tree (1.5 samples for eight groups).

Inside a group the samples come epoch after epoch of that group alone, shuffled like an unmixed epoch: shards permuted,
then windows. An epoch of the mixed stream has as many samples as the whole subset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from shards.errors import ConfigError
from shards.stream.order import EpochOrder, OrderSettings, rank_slots


class Mixture(BaseModel):
    """How to mix.

    Attributes:
        by: What a group is.
        weights: Group → weight; any scale. Without weights a group weighs as many samples as it has.
        temperature: Flattens the weights, `weight ** (1 / temperature)`: 1 leaves them, a large one makes all equal.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["modality", "source"] = "modality"
    weights: Mapping[str, float] = Field(default_factory=dict)
    temperature: float = Field(default=1.0, gt=0)

    def shares(self, groups: Sequence[str], counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """The share of each group, adding up to 1.

        Args:
            groups: Names, in the order of the result.
            counts: Samples of each.

        Raises:
            ConfigError: Weights are given for some of the groups only, or for others, or are not positive.
        """
        if self.weights:
            wrong = sorted(set(self.weights) ^ set(groups))
            if wrong or min(self.weights.values()) <= 0:
                raise ConfigError(
                    f"mixing by {self.by} needs one positive weight for each of {', '.join(groups)}"
                    + (f"; see {', '.join(wrong)}" if wrong else ""),
                    hint="name them all, or give a temperature only",
                )
            weights = np.array([self.weights[group] for group in groups], dtype=np.float64)
        else:
            weights = counts.astype(np.float64)
        flattened = (weights / weights.max()) ** (1 / self.temperature)
        shares: NDArray[np.float64] = flattened / flattened.sum()
        return shares


def prefix_counts(numbers: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the first `n` samples belong to each group.

    Args:
        numbers: `(N,)` prefix lengths `n`.
        shares: `(G,)` shares of the groups.

    Returns:
        `(N, G)` int64; each row adds up to its `n`, and each column grows by 0 or 1 from `n` to `n + 1`.
    """
    if len(shares) == 1:
        return numbers[:, None]
    half = len(shares) // 2
    share = shares[:half].sum() / shares.sum()
    left = np.floor(numbers * share + 0.5).astype(np.int64)
    return np.concatenate([prefix_counts(left, shares[:half]), prefix_counts(numbers - left, shares[half:])], axis=1)


class MixedOrder:
    """The order of one epoch of a mixed stream; the same face as `EpochOrder`.

    Args:
        counts: `(S,)` int64, selected samples of each shard.
        groups: Group of each shard.
        settings: What decides the order.
        mixture: How to mix.
        epoch: The epoch, from 0.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        groups: Sequence[str],
        settings: OrderSettings,
        mixture: Mixture,
        epoch: int,
    ) -> None:
        self.settings = settings
        self.epoch = epoch
        self._whole = EpochOrder(counts, settings, epoch)
        self.num_batches = self._whole.num_batches
        names = sorted(set(groups))
        labels = np.asarray([names.index(group) for group in groups])
        self._members = [np.flatnonzero(labels == number) for number in range(len(names))]
        self._counts = [counts[members] for members in self._members]
        sizes = np.array([int(part.sum()) for part in self._counts], dtype=np.int64)
        self._shares = mixture.shares(names, sizes)
        self._sizes = sizes
        self._epochs: dict[tuple[int, int], EpochOrder] = {}

    def batch(self, index: int, *, rank: int = 0, world_size: int = 1) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The samples of one rank's part of a global batch; see `EpochOrder.batch`."""
        slots = rank_slots(self.settings.global_batch, rank=rank, world_size=world_size)
        start = (self.epoch * self.num_batches + index) * self.settings.global_batch
        counts = prefix_counts(np.arange(start + slots.start, start + slots.stop + 1, dtype=np.int64), self._shares)
        chosen = np.diff(counts, axis=0).argmax(axis=1)
        turns = counts[np.arange(len(chosen)), chosen]
        shards = np.empty(len(chosen), dtype=np.int64)
        rows = np.empty(len(chosen), dtype=np.int64)
        for group in np.unique(chosen).tolist():
            here = chosen == group
            shards[here], rows[here] = self._group(group, turns[here])
        return shards, rows

    def seeds(self, index: int, *, rank: int = 0, world_size: int = 1) -> NDArray[np.uint64]:
        """The random keys of one rank's slots; see `EpochOrder.seeds`."""
        return self._whole.seeds(index, rank=rank, world_size=world_size)

    def substitute(self, index: int, slot: int, attempt: int) -> tuple[int, int]:
        """The sample that stands in for a bad one; see `EpochOrder.substitute`."""
        return self._whole.substitute(index, slot, attempt)

    def _group(self, group: int, turns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        epochs, positions = np.divmod(turns, self._sizes[group])
        shards = np.empty(len(turns), dtype=np.int64)
        rows = np.empty(len(turns), dtype=np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            inner, rows[here] = self._group_epoch(group, epoch).locate_shuffled(positions[here])
            shards[here] = self._members[group][inner]
        return shards, rows

    def _group_epoch(self, group: int, epoch: int) -> EpochOrder:
        """One epoch of one group as a single lane of unit batches, with the window of all lanes together."""
        known = self._epochs.get((group, epoch))
        if known is None:
            for old in [key for key in self._epochs if key[0] == group and key[1] < epoch - 1]:
                del self._epochs[old]
            how = OrderSettings(
                seed=(self.settings.seed * 1_000_003 + group + 1) % 2**63,
                global_batch=1,
                num_lanes=1,
                window=self.settings.window * self.settings.num_lanes,
            )
            known = self._epochs[group, epoch] = EpochOrder(self._counts[group], how, epoch)
        return known
