"""Figures of steps that the device still computes: read some steps later, so that the host never waits for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train.schedules import StepValues

__all__ = ["LATE_STEPS", "Figures", "Submitted"]

LATE_STEPS = {"cuda": 2}
"""Device type → steps between a step and the reading of its figures; none where the device is the host itself."""


class Figures:
    """Scalars of one step on their way to the host.

    Args:
        names: Of the scalars.
        packed: `(names,)` float64 on the device; an own copy in pinned memory is filled as soon as it is computed.
    """

    def __init__(self, names: Sequence[str], packed: Tensor) -> None:
        self._names = names
        self._done: torch.cuda.Event | None = None
        self._host = packed
        if packed.device.type == "cuda":
            self._host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
            self._host.copy_(packed, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stub
            self._done.record()

    def read(self) -> dict[str, float]:
        """The values; waits until the device has computed them."""
        if self._done is not None:
            self._done.synchronize()
        return dict(zip(self._names, self._host.tolist(), strict=True))


@dataclass(slots=True, kw_only=True)
class Submitted:
    """A step that was given to the device, and what its report will say.

    Attributes:
        step: Steps done with it.
        epoch: Of the batch.
        batch: The batch's index in its epoch.
        values: Of the schedules.
        figures: On their way.
        began: When the step began, by `time.perf_counter`.
        waited: Seconds that the loop waited for the batch.
        seconds: This step's time; 0 until it is known.
    """

    step: int
    epoch: int
    batch: int
    values: StepValues
    figures: Figures
    began: float
    waited: float
    seconds: float = 0.0
