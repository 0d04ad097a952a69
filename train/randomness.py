"""Random numbers that depend on the seed, the step and the place in the global batch, and on nothing else.

Every draw comes from a counter-based generator (Philox 4x64) whose key is `(seed, purpose)` and whose counter starts at
`(step, unit)`. A unit is a fixed run of images of the global batch. So one rank or sixteen, fresh or resumed, draw the
same numbers for the same images, and there is no generator state to save.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, device

__all__ = ["Purpose", "Share", "part_of", "to_device"]

_Numbers = TypeVar("_Numbers")


class Purpose(IntEnum):
    """What numbers are drawn for; each purpose has its own sequence."""

    AUGMENT_GLOBAL = 1
    AUGMENT_LOCAL = 2
    MASK = 3
    DROP_PATH_GLOBAL = 4
    DROP_PATH_LOCAL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of a step's global batch that is computed at once: a whole number of units.

    Attributes:
        seed: The run's seed.
        step: Index of the optimiser step, from 0.
        first_unit: Index of the first unit in the global batch.
        num_units: Units here.
        unit_images: Images a unit.
    """

    seed: int
    step: int
    first_unit: int
    num_units: int
    unit_images: int

    @property
    def num_images(self) -> int:
        """Images in this share."""
        return self.num_units * self.unit_images

    def draw(self, purpose: Purpose, sample: Callable[[np.random.Generator], NDArray[Any]]) -> NDArray[Any]:
        """`sample` called once a unit, with the unit's own generator; stacked to `(num_units, ...)`."""
        return np.stack([sample(self._generator(purpose, unit)) for unit in range(self.num_units)])

    def scalar_source(self, purpose: Purpose, unit: int) -> random.Random:
        """A generator of Python scalars for one unit, for algorithms that draw one number at a time."""
        return random.Random(int(self._generator(purpose, unit).integers(2**63)))  # noqa: S311 - not for secrets

    def _generator(self, purpose: Purpose, unit: int) -> np.random.Generator:
        key = np.array([self.seed % 2**64, int(purpose)], dtype=np.uint64)
        counter = np.array([0, 0, self.first_unit + unit, self.step], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


def to_device(drawn: Mapping[str, NDArray[Any]], device: device) -> dict[str, Tensor]:
    """Drawn numbers as tensors; where nobody has brought them to the device ahead of time."""
    import torch

    return {name: torch.from_numpy(numbers).to(device, non_blocking=True) for name, numbers in drawn.items()}


def part_of(drawn: Mapping[str, _Numbers], prefix: str) -> dict[str, _Numbers]:
    """The entries whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): numbers for name, numbers in drawn.items() if name.startswith(prefix)}
