"""Stops a run that has gone wrong, and says why."""

from __future__ import annotations

import math
from collections.abc import Mapping

from shards.errors import TrainingError
from train.recipe import Recipe

__all__ = ["Watch"]

MIN_INFORMATION = 1e-3
"""Nats; below it, the teacher's targets are the same for every image."""


class Watch:
    """Counts consecutive bad steps.

    Args:
        recipe: Its `watch` section says when to stop.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._config = recipe.watch
        self._collapse_from = recipe.watch.collapse_after * recipe.run.steps
        self._batch = recipe.run.global_batch
        self._non_finite = 0
        self._collapsed = 0

    def finite(self, losses: Mapping[str, float], grad_norms: Mapping[str, float], *, step: int) -> bool:
        """Whether losses and gradient norms are all finite; the step is to be skipped where they are not.

        Raises:
            TrainingError: Too many such steps in a row.
        """
        bad = sorted(name for name, value in {**losses, **grad_norms}.items() if not math.isfinite(value))
        self._non_finite = self._non_finite + 1 if bad else 0
        if self._non_finite >= self._config.non_finite_patience:
            raise TrainingError(
                f"step {step}: {', '.join(bad)} not finite for {self._non_finite} steps in a row",
                hint="lower optim.base_lr or lengthen optim.warmup, or run.precision=fp32; the last checkpoint is good",
            )
        return not bad

    def alive(self, watched: Mapping[str, float], *, step: int) -> None:
        """Look for collapse.

        Raises:
            TrainingError: All images look alike, or all targets are alike, for too long.
        """
        if not watched or not self._config.collapse_patience or step < self._collapse_from:
            return
        reason = self._collapse(watched)
        self._collapsed = self._collapsed + 1 if reason else 0
        if reason and self._collapsed >= self._config.collapse_patience:
            small = " and a larger run.global_batch (under 256 collapses easily)" if self._batch < 256 else ""
            raise TrainingError(
                f"step {step}: collapsed for {self._collapsed} steps: {reason}",
                hint=f"try a lower optim.base_lr, a longer teacher_temperature_warmup{small}",
            )

    def _collapse(self, watched: Mapping[str, float]) -> str:
        if watched["feature_std"] < self._config.min_feature_std:
            return (
                f"all images have the same features (feature_std {watched['feature_std']:.2g} is under "
                f"{self._config.min_feature_std:g})"
            )
        if watched["target_information"] < MIN_INFORMATION:
            used = watched["prototypes_used"]
            return f"the teacher's targets are the same for all images ({used:.1f} prototypes in use)"
        return ""
