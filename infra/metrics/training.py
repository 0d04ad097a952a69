"""Figures of a training run, set after every step on the first rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Gauge

    from train.record import StepReport

__all__ = ["TrainingFigures"]

_STEP_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0)


class TrainingFigures:
    """What `StepReport` says, as metrics.

    Args:
        registry: Where they register.
        run: Name of the run's folder.
        global_batch: Images of a step.
    """

    def __init__(self, registry: CollectorRegistry, *, run: str, global_batch: int) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._global_batch = global_batch
        self._run = run

        def gauge(name: str, text: str) -> Gauge:
            """It has no value until it is set: 0 would be a loss, and a step."""
            return Gauge(f"biovfm_train_{name}", text, ["run"], registry=registry)

        def counter(name: str, text: str) -> Counter:
            found = Counter(f"biovfm_train_{name}", text, ["run"], registry=registry)
            return found.labels(run)

        self._step = gauge("step", "Optimiser steps done, those of earlier attempts included.")
        self._steps = gauge("target_steps", "Optimiser steps of the whole run.")
        self._epoch = gauge("epoch", "Pass over the data.")
        self._loss = gauge("loss", "What was minimised, averaged over ranks.")
        self._lr = gauge("learning_rate", "Learning rate before the groups' multipliers.")
        self._stall = gauge("data_stall_ratio", "Share of the last step that waited for data, 0 to 1.")
        self._memory = gauge("memory_peak_bytes", "Peak memory: the GPU's where there is one, else the process's.")
        self._images = counter("images", "Images learned from, over all ranks, by this attempt.")
        self._waited = counter("data_wait_seconds", "Time that steps waited for data.")
        self._skipped = counter("skipped_steps", "Steps that were not finite and changed nothing.")
        self._norms = Gauge("biovfm_train_gradient_norm", "Before clipping.", ["run", "module"], registry=registry)
        seconds = Histogram(
            "biovfm_train_step_duration_seconds", "Time of a step.", ["run"], buckets=_STEP_SECONDS, registry=registry
        )
        self._seconds = seconds.labels(run)

    def start(self, *, step: int, steps: int) -> None:
        """The run begins, or goes on, after so many of its steps."""
        self._set(self._step, step)
        self._set(self._steps, steps)

    def step(self, report: StepReport) -> None:
        """Another step."""
        self._set(self._step, report.step)
        self._set(self._steps, report.steps)
        self._set(self._epoch, report.epoch)
        self._set(self._loss, report.loss)
        self._set(self._lr, report.lr)
        self._set(self._stall, report.stall_share)
        self._set(self._memory, report.memory_bytes)
        self._images.inc(self._global_batch)
        self._waited.inc(report.stall_share * report.seconds)
        self._skipped.inc(int(report.skipped))
        self._seconds.observe(report.seconds)
        for module, value in report.grad_norms.items():
            self._norms.labels(self._run, module).set(value)

    def _set(self, gauge: Gauge, value: float) -> None:
        gauge.labels(self._run).set(value)
