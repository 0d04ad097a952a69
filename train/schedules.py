"""Schedules as functions of the step, exact to the references' arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass

from train.recipe import DinoConfig, Recipe

__all__ = ["Cosine", "StepValues", "mae_lr", "schedule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosine:
    """Frozen at zero, a linear warm-up, then a half cosine (DINOv2's CosineScheduler).

    The warm-up runs from `start` to `base`, both reached; the cosine starts at `base` and would reach `end` one step
    after the run, as in the reference.

    Attributes:
        base: Value after the warm-up.
        end: Value that the cosine runs to.
        steps: Length of the run.
        warmup: Steps of warm-up.
        start: First value of the warm-up.
        freeze: Steps at zero before the warm-up.
    """

    base: float
    end: float
    steps: int
    warmup: int = 0
    start: float = 0.0
    freeze: int = 0

    def __call__(self, step: int) -> float:
        """The value used at a step (from 0)."""
        if step >= self.steps:
            return self.end
        if step < self.freeze:
            return 0.0
        step -= self.freeze
        if step < self.warmup:
            return self.start + (self.base - self.start) * step / max(self.warmup - 1, 1)
        length = self.steps - self.warmup - self.freeze
        return self.end + 0.5 * (self.base - self.end) * (1 + math.cos(math.pi * (step - self.warmup) / length))


def mae_lr(progress: float, *, base: float, end: float, warmup: float, total: float) -> float:
    """MAE's learning rate at a fractional epoch (or step): linear warm-up from 0, then a half cosine to `end`."""
    if progress < warmup:
        return base * progress / warmup
    return end + (base - end) * 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (total - warmup)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepValues:
    """What the schedules say for one step.

    Attributes:
        lr: Learning rate before the groups' multipliers.
        last_layer_lr: The same for the heads' last layer.
        weight_decay: Weight decay before the groups' multipliers.
        momentum: EMA of the teacher (1 where there is none).
        teacher_temperature: Softmax temperature of the teacher (1 where there is none).
    """

    lr: float
    last_layer_lr: float
    weight_decay: float
    momentum: float = 1.0
    teacher_temperature: float = 1.0


def schedule(recipe: Recipe, step: int) -> StepValues:
    """The values that a recipe gives at a step (from 0)."""
    steps, optim = recipe.run.steps, recipe.optim
    warmup = round(optim.warmup * steps)
    decay = Cosine(base=optim.weight_decay[0], end=optim.weight_decay[1], steps=steps)(step)
    if not isinstance(recipe.method, DinoConfig):
        lr = mae_lr(step, base=recipe.effective_lr, end=optim.min_lr, warmup=warmup, total=steps)
        return StepValues(lr=lr, last_layer_lr=lr, weight_decay=decay)
    lr = Cosine(base=recipe.effective_lr, end=optim.min_lr, steps=steps, warmup=warmup)(step)
    return StepValues(
        lr=lr,
        last_layer_lr=0.0 if step < round(optim.freeze_last_layer * steps) else lr,
        weight_decay=decay,
        momentum=Cosine(base=recipe.method.momentum[0], end=recipe.method.momentum[1], steps=steps)(step),
        teacher_temperature=_teacher_temperature(recipe.method, step, steps),
    )


def _teacher_temperature(method: DinoConfig, step: int, steps: int) -> float:
    start, end = method.teacher_temperature
    warmup = round(method.teacher_temperature_warmup * steps)
    return Cosine(base=end, end=end, steps=steps, warmup=warmup, start=start)(step)
