"""The loop: take a batch, step, report, checkpoint; until the end, a signal, or trouble."""

from __future__ import annotations

import resource
import signal
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shards.errors import CheckpointError
from train.checkpoint import Checkpoint, Checkpoints, Lease, code_version
from train.data import ImageStream
from train.distributed import World, autocast, known_to_all, mean_over_ranks, without_gradient_sync
from train.feed.device_stream import DeviceBatch, DeviceStream
from train.feed.feeder import Draw
from train.late import LATE_STEPS, Figures, Submitted
from train.methods import Method
from train.optim import clip_each, set_step_values
from train.randomness import Share, part_of
from train.recipe import Recipe
from train.record import Recorder, StepReport
from train.schedules import StepValues, schedule
from train.watch import Watch

__all__ = ["Loop", "Monitor", "StopFlag", "stop_on_signals"]

HURRY_SECONDS = 3.0
"""A second Ctrl-C ends the run at once, but not one that follows so soon: torchrun passes the terminal's on."""


class Monitor(Protocol):
    """Measures the backbone now and then: the online k-NN, wired in from outside."""

    def __call__(self, model: nn.Module, *, step: int) -> Mapping[str, float]:
        """Figures of a plain timm model (evaluation mode, on this process's device) after `step` steps."""
        ...


@dataclass(slots=True)
class StopFlag:
    """Whether someone asked this process to stop.

    Attributes:
        requested: By SIGTERM or by Ctrl-C.
        interrupted: By Ctrl-C.
    """

    requested: bool = False
    interrupted: bool = False


@contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """While inside, SIGTERM (pre-emption, SLURM's requeue) and Ctrl-C set the flag instead of ending the process.

    A second Ctrl-C, some seconds after the first, raises `KeyboardInterrupt`.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    first = 0.0

    def request(number: int, _frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if number == signal.SIGINT and flag.interrupted and now - first > HURRY_SECONDS:
            raise KeyboardInterrupt
        if number == signal.SIGINT and not flag.interrupted:
            first, flag.interrupted = now, True
        flag.requested = True

    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(slots=True, kw_only=True)
class Loop:
    """One rank's training.

    Attributes:
        recipe: What to do.
        world: Where.
        method: The objective with its networks.
        network: What to call for the student (wrapped for several ranks).
        optimizer: Of the network.
        stream: Gives this rank's part of every batch.
        checkpoints: Where to save.
        step: Steps done.
        leases: On the run's folder and its mirror; held by the first rank alone.
        last_inputs: The last prepared micro-batch, for pictures.
        num_decoded_on_host: Images of this rank that the host decoded in a run that decodes on the device.
    """

    recipe: Recipe
    world: World
    method: Method
    network: nn.Module
    optimizer: torch.optim.Optimizer
    stream: ImageStream
    checkpoints: Checkpoints
    step: int = 0
    leases: Sequence[Lease] = ()
    last_inputs: Any = None
    num_decoded_on_host: int = 0

    def run(
        self,
        recorder: Recorder | None,
        *,
        stop: StopFlag,
        progress: Callable[[StepReport], None] | None,
        monitor: Callable[[int], Mapping[str, float]],
    ) -> StepReport | None:
        """Train to the end of the recipe or until `stop` is requested on any rank; the last step's report.

        Reports come some steps late on a device (`LATE_STEPS`); all of them are written before a checkpoint.
        """
        watch, report, stopping = Watch(self.recipe), None, False
        late: deque[Submitted] = deque()

        def settle(keep: int) -> None:
            nonlocal report, stopping
            while len(late) > keep:
                report, wants_to_stop = self._settle(late.popleft(), watch, monitor)
                stopping = stopping or wants_to_stop
                if recorder is not None:
                    recorder.write(report)
                if progress is not None and self.world.is_first:
                    progress(report)
                watch.alive(report.watched, step=report.step)

        feed = DeviceStream(self.stream, self.world.device, draw=self.draw_from(self.step), kernels=self.method.kernels)
        with closing(iter(feed)) as batches:
            while self.step < self.recipe.run.steps and not stopping:
                began = time.perf_counter()
                late.append(self._one_step(batches, stop))
                now = self._checkpoint_is_due() or self._monitor_is_due()
                settle(0 if now else LATE_STEPS.get(self.world.device.type, 0))
                if late:
                    late[-1].seconds = time.perf_counter() - began
                if stopping or self._checkpoint_is_due():
                    settle(0)
                    if recorder is not None:
                        recorder.flush()  # a run that goes on from here has its lines up to here
                    self.save(feed.state_dict())
        self.num_decoded_on_host = feed.num_decoded_on_host
        self.checkpoints.wait()
        return report

    def save(self, position: Mapping[str, Any]) -> None:
        """Start a checkpoint of this moment, when the stream is at a position."""
        checkpoint = Checkpoint(
            step=self.step,
            stream=dict(position),
            digest=self.stream.digest,
            recipe=self.recipe.model_dump(mode="json"),
            code_version=code_version(),
            world_size=self.world.size,
        )
        self.checkpoints.save(checkpoint, self.method, self.optimizer)

    def _one_step(self, batches: Iterator[DeviceBatch], stop: StopFlag) -> Submitted:
        """Give a step to the device without waiting for it."""
        began = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter() - began
        values = schedule(self.recipe, self.step)
        trouble = self.checkpoints.failed or any(lease.lost for lease in self.leases)
        own = {"checksum": self._checksum(batch.keys), "stop": float(stop.requested), "trouble": float(trouble)}
        figures = self.submit(batch.views, values, own, batch.drawn)
        self.step += 1
        return Submitted(
            step=self.step,
            epoch=batch.epoch,
            batch=batch.index,
            values=values,
            figures=figures,
            began=began,
            waited=waited,
        )

    def submit(
        self,
        views: Sequence[Tensor | NDArray[np.uint8]],
        values: StepValues,
        own: Mapping[str, float],
        drawn: Mapping[str, Tensor] | None = None,
    ) -> Figures:
        """Everything that a step computes on the device; nothing is read back.

        A step whose loss or gradients are not finite on some rank changes nothing: AdamW and the teacher's average see
        a flag that stays on the device.

        Args:
            views: This rank's crops, on the device; from arrays of the host the step waits for a copy.
            values: Of the schedules.
            own: Numbers of this rank that are to be averaged over the ranks with the step's figures.
            drawn: Random numbers of the step on the device, as the feeder brings them; drawn now where None.
        """
        set_step_values(self.optimizer, values)
        scalars = self._forward_backward(views, values, drawn)
        norms = clip_each(self.method.clip_modules(), self.recipe.optim.clip_norm)
        checked = {name: value for name, value in scalars.items() if name.startswith("loss")}
        checked |= {f"norm/{name}": value for name, value in norms.items()}
        named = checked | {name: value for name, value in scalars.items() if name not in checked}
        here = [scalars["loss"].new_full((), value, dtype=torch.float64) for value in own.values()]
        packed = mean_over_ranks(torch.stack([*named.values(), *here]))  # float64, by promotion in one call
        zeros = packed[: len(checked)] * 0  # NaN where a number is not finite
        skip = zeros.sum(dtype=torch.float32).nan_to_num(nan=1.0)
        self.optimizer.found_inf = skip  # type: ignore[attr-defined]  # read by the fused step, as by GradScaler's
        self.optimizer.step()
        self.method.update_teacher(values.momentum, skip=skip)
        self.method.end_step()
        self.optimizer.zero_grad(set_to_none=True)
        return Figures([*named, *own], packed)

    def _settle(
        self, done: Submitted, watch: Watch, monitor: Callable[[int], Mapping[str, float]]
    ) -> tuple[StepReport, bool]:
        """Read a step's figures: its report, and whether some rank wants to stop."""
        figures = done.figures.read()
        good = watch.finite(_under(figures, "loss"), _under(figures, "norm/"), step=done.step)
        if figures["trouble"] > 0:
            self._explain_trouble()
        report = self._report(done, figures, skipped=not good)
        if done.step == self.step and self._monitor_is_due():
            report = replace(report, monitored=dict(monitor(self.step)))
        return report, figures["stop"] > 0

    def _explain_trouble(self) -> NoReturn:
        """Raise the error for which some rank asked all others to stop."""
        self.checkpoints.wait()
        for lease in self.leases:
            lease.check()
        raise known_to_all(CheckpointError("the first rank no longer holds the run's folder"))

    def _report(self, done: Submitted, figures: Mapping[str, float], *, skipped: bool) -> StepReport:
        seconds = done.seconds or time.perf_counter() - done.began
        return StepReport(
            step=done.step,
            steps=self.recipe.run.steps,
            epoch=done.epoch,
            batch=done.batch,
            keys_checksum=round(figures["checksum"] * self.world.size),
            loss=figures["loss"],
            losses=_under(figures, "loss/"),
            watched=_under(figures, "watch/"),
            grad_norms=_under(figures, "norm/"),
            lr=done.values.lr,
            weight_decay=done.values.weight_decay,
            momentum=done.values.momentum,
            teacher_temperature=done.values.teacher_temperature,
            images_per_second=self.recipe.run.global_batch / seconds,
            stall_share=done.waited / seconds,
            seconds=seconds,
            memory_bytes=_peak_memory(self.world.device),
            skipped=skipped,
        )

    def draw_from(self, first_step: int) -> Draw:
        """Draws the random numbers of the n-th step from `first_step` on, by micro-batch; ahead of the step."""

        def draw(number: int) -> dict[str, NDArray[Any]]:
            return {
                f"{micro}/{name}": numbers
                for micro, share in enumerate(self._shares(first_step + number))
                for name, numbers in self.method.draw(share).items()
            }

        return draw

    def _shares(self, step: int) -> list[Share]:
        """What this rank computes in a step, one share a micro-batch."""
        run = self.recipe.run
        per_rank = run.global_batch // self.world.size
        per_micro = per_rank // run.accumulate
        return [
            Share(
                seed=self.recipe.seed,
                step=step,
                first_unit=(self.world.rank * per_rank + micro * per_micro) // run.unit_images,
                num_units=per_micro // run.unit_images,
                unit_images=run.unit_images,
            )
            for micro in range(run.accumulate)
        ]

    def _forward_backward(
        self, views: Sequence[Tensor | NDArray[np.uint8]], values: StepValues, drawn: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """Gradients of the whole batch; means over micro-batches of the losses and what is watched."""
        run, device = self.recipe.run, self.world.device
        sums: dict[str, Tensor] = {}
        for micro, share in enumerate(self._shares(self.step)):
            here = slice(micro * share.num_images, (micro + 1) * share.num_images)
            numbers = None if drawn is None else part_of(drawn, f"{micro}/")
            inputs = self.method.prepare([_to_device(view[here], device) for view in views], share, numbers)
            with without_gradient_sync(self.network, skip=micro < run.accumulate - 1):
                with autocast(run, device):
                    losses = self.method.losses(self.network, inputs, values)
                _portion(losses.total, run.accumulate).backward()  # type: ignore[no-untyped-call]  # torch's stub
            self.last_inputs = inputs
            named = {"loss": losses.total.detach()}
            named |= {f"loss/{name}": value for name, value in losses.parts.items()}
            named |= {f"watch/{name}": value for name, value in losses.watched.items()}
            for name, value in named.items():
                portion = _portion(value, run.accumulate)
                sums[name] = sums[name] + portion if micro else portion
        return sums

    def _checksum(self, keys: Sequence[str]) -> int:
        first = self.world.rank * len(keys)
        return sum(zlib.crc32(f"{first + place} {key}".encode()) for place, key in enumerate(keys))

    def _checkpoint_is_due(self) -> bool:
        return self.step == self.recipe.run.steps or self.step % self.recipe.checkpoint.every == 0

    def _monitor_is_due(self) -> bool:
        every = self.recipe.watch.monitor_every
        return self.step == self.recipe.run.steps or (every is not None and self.step % every == 0)


def _portion(value: Tensor, num: int) -> Tensor:
    """One of so many equal summands of a mean; no operation on the device where there is one."""
    return value if num == 1 else value / num


def _to_device(view: Tensor | NDArray[np.uint8], device: torch.device) -> Tensor:
    return view if isinstance(view, Tensor) else torch.from_numpy(view).to(device)


def _under(figures: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The figures whose names start with a prefix, without it (whole names for `loss`, which is one itself)."""
    cut = prefix if prefix.endswith("/") else ""
    return {name.removeprefix(cut): value for name, value in figures.items() if name.startswith(prefix)}


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
