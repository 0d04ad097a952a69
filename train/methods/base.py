"""What the loop needs to know of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch import Tensor, nn

from shards.decode.kernels.choice import KernelName
from train.backbone import Backbone
from train.compiling import Compiled
from train.optim import Multipliers
from train.randomness import Share
from train.recipe import Recipe
from train.schedules import StepValues

__all__ = ["Method", "StepLosses"]


@dataclass(frozen=True, slots=True)
class StepLosses:
    """What a micro-batch gives.

    Attributes:
        total: The scalar that is minimised.
        parts: Its summands with their weights, as optimised: they add up to `total`.
        watched: Scalars for the collapse monitor.
    """

    total: Tensor
    parts: Mapping[str, Tensor]
    watched: Mapping[str, Tensor]


class Method(nn.Module, ABC):
    """A trainable network, what belongs to it, and its objective.

    Attributes:
        network: What the optimiser trains; the loop wraps it for several ranks.
        compiled: Gives the losses in their compiled form where the run compiles.
        kernels: What augments: torch, or Triton where a GPU has it (`shards.decode.kernels.choice`).
    """

    network: nn.Module

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.compiled = Compiled()
        self.kernels: KernelName = "torch"

    @abstractmethod
    def draw(self, share: Share) -> dict[str, NDArray[Any]]:
        """The random numbers of a micro-batch as `prepare` uses them: masks, rows, strengths; on the host.

        They depend on the recipe and on `share` alone, so they may be drawn ahead, in any thread.

        Args:
            share: Which images of which step these are.
        """

    @abstractmethod
    def prepare(self, views: Sequence[Tensor], share: Share, drawn: Mapping[str, Tensor] | None = None) -> Any:
        """Augment and mask.

        Args:
            views: One `(B, num, S, S, C)` uint8 a group of crops, on the device that computes.
            share: Which images of which step these are.
            drawn: What `draw` gives for the share, on the device; drawn now where None.
        """

    @abstractmethod
    def losses(self, network: nn.Module, inputs: Any, values: StepValues) -> StepLosses:
        """The objective of a micro-batch.

        Args:
            network: `self.network`, perhaps wrapped.
            inputs: From `prepare`.
            values: Of the schedules at this step.
        """

    @abstractmethod
    def multipliers(self, name: str) -> Multipliers:
        """How learning rate and weight decay apply to a parameter of `network`."""

    @abstractmethod
    def clip_modules(self) -> dict[str, nn.Module]:
        """The parts of `network` whose gradients are clipped each by its own norm."""

    @abstractmethod
    def shard_modules(self) -> list[nn.Module]:
        """Modules to shard under FSDP, inner ones before those that hold them."""

    @abstractmethod
    def export_backbone(self) -> Backbone:
        """The backbone that a finished run gives away (the teacher's, where there is one)."""

    def end_step(self) -> None:
        """What moves with every batch, whether the step was taken or skipped; nothing by default."""

    def update_teacher(self, momentum: float, *, skip: Tensor | None = None) -> None:
        """Move the teacher after an optimiser step; nothing where there is none.

        Args:
            momentum: Share of the teacher that stays.
            skip: Scalar on the device, 1 where the step was skipped.
        """

    def pictures(self, network: nn.Module, inputs: Any) -> Mapping[str, Tensor] | None:
        """Normalised images `(B, C, H, W)` that show what the method does with a prepared batch, by kind."""
        del network, inputs
        return None
