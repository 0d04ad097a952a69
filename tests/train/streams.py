"""Streams in memory, for tests of the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.stream.digests import Digests
from train.recipe import Recipe


@dataclass(frozen=True)
class MemoryBatch:
    views: tuple[NDArray[np.uint8], ...]
    keys: tuple[str, ...]
    epoch: int
    index: int


class MemoryStream:
    """Smooth random images; what a batch holds follows from its position, as with the real stream."""

    digest = "sha256:memory"

    def __init__(self, recipe: Recipe, data: str, rank: int, world_size: int, *, num_samples: int = 64) -> None:
        self._recipe, self._rank, self._world = recipe, rank, world_size
        self.num_samples = num_samples
        self.batches_per_epoch = num_samples // recipe.run.global_batch
        self._next = 0
        self.closed = False
        if data.startswith("sha256:"):
            self.digest = data

    @property
    def digests(self) -> Digests:
        return Digests(samples=self.digest, order=f"order of {self.digest}", num_samples=self.num_samples)

    def __iter__(self) -> Iterator[MemoryBatch]:
        while True:
            number = self._next
            self._next += 1
            yield self._batch(number)

    def _batch(self, number: int) -> MemoryBatch:
        total = self._recipe.run.global_batch
        mine = slice(self._rank * total // self._world, (self._rank + 1) * total // self._world)
        rng = np.random.default_rng(number)
        samples = rng.integers(self.num_samples, size=total)
        views = tuple(
            np.stack([picture(int(s), number, crop.num, crop.size_px) for s in samples])[mine]
            for crop in self._recipe.crops()
        )
        keys = tuple(f"sample-{s}" for s in samples)[mine]
        return MemoryBatch(views, keys, number // self.batches_per_epoch, number % self.batches_per_epoch)

    def state_dict(self) -> dict[str, Any]:
        digests = {"samples": self.digests.samples, "order": self.digests.order}
        return {"epoch": self._next // self.batches_per_epoch, "batch": self._next % self.batches_per_epoch, **digests}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._next = state["epoch"] * self.batches_per_epoch + state["batch"]

    def close(self) -> None:
        self.closed = True


def picture(sample: int, number: int, num: int, size: int) -> NDArray[np.uint8]:
    """`(num, size, size, 3)`: a few cosines that belong to the sample, shifted by the crop."""
    waves = np.random.default_rng(sample).uniform(0.5, 3, (3, 2))
    shifts = np.random.default_rng([sample, number]).uniform(0, 6, (num, 3))
    place = np.linspace(0, np.pi, size)
    phase = waves[:, :1, None] * place[None, :, None] + waves[:, 1:, None] * place[None, None, :]
    levels = 127.5 + 127 * np.cos(phase[None] + shifts[:, :, None, None])
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1).astype(np.uint8))
