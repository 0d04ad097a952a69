"""Where a run's numbers go: JSON lines and TensorBoard always, Weights & Biases and MLflow on request."""

from __future__ import annotations

import json
import math
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shards.files import parse_json
from train.loggers import open_loggers
from train.output import writing
from train.recipe import Recipe

__all__ = ["Recorder", "StepReport"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One optimiser step, averaged over ranks.

    Attributes:
        step: Steps done, from 1.
        steps: Steps of the run.
        epoch: Pass over the data that the batch came from.
        batch: The batch's index in its epoch.
        keys_checksum: Of the batch's sample keys and their places, over all ranks: equal numbers, equal samples.
        loss: What was minimised.
        losses: Its summands, with their weights: they add up to `loss`.
        watched: Health of the representation.
        grad_norms: Of each module, before clipping.
        lr: Learning rate, before the groups' multipliers.
        weight_decay: Before the groups' multipliers.
        momentum: EMA of the teacher.
        teacher_temperature: Of the teacher's softmax.
        images_per_second: Over all ranks, waiting included.
        stall_share: Share of this step's time that the loop waited for data (0 to 1).
        seconds: This step's time.
        memory_bytes: Peak: the GPU's where there is one, else the process's.
        skipped: The step was not finite and changed nothing.
        monitored: What the monitor said after this step, if it was called.
    """

    step: int
    steps: int
    epoch: int
    batch: int
    keys_checksum: int
    loss: float
    losses: Mapping[str, float]
    watched: Mapping[str, float] = field(default_factory=dict)
    grad_norms: Mapping[str, float] = field(default_factory=dict)
    lr: float
    weight_decay: float
    momentum: float = 1.0
    teacher_temperature: float = 1.0
    images_per_second: float
    stall_share: float
    seconds: float
    memory_bytes: int
    skipped: bool = False
    monitored: Mapping[str, float] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """One level of keys: `loss_mae`, `grad_norm_encoder`, `monitor_knn` ... beside the plain ones."""
        out = asdict(self)
        groups = {"losses": "loss_", "watched": "", "grad_norms": "grad_norm_", "monitored": "monitor_"}
        for key, prefix in groups.items():
            out |= {prefix + name: value for name, value in out.pop(key).items()}
        return out


class Recorder:
    """Writes every step's report, in a thread of its own: the step does not wait for JSON, TensorBoard and the disk.

    A line is in the file some milliseconds after its step; `flush` waits for all of them. Weights & Biases and MLflow,
    which have threads of their own and may be bound to the one that opened them, are called by whoever calls `write`.

    Args:
        out: The run's folder.
        recipe: Names the extra loggers.
        start: Steps done already; later lines of an earlier, killed attempt are dropped.
    """

    def __init__(self, out: Path, recipe: Recipe, *, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = out / "metrics.jsonl"
        with writing(self._path):
            out.mkdir(parents=True, exist_ok=True)
            _keep_lines(self._path, start)
            self._lines = self._path.open("a", encoding="utf-8")
            self._hook, threading.excepthook = threading.excepthook, _without_full_disk(threading.excepthook)
            self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1 if start else None)
        self._extras = open_loggers(out, recipe)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="biovfm-record")
        self._coming: deque[Future[None]] = deque()

    def write(self, report: StepReport) -> None:
        """Begin to write one step.

        Raises:
            StoreError: The disk was full at an earlier step.
        """
        while self._coming and self._coming[0].done():
            self._coming.popleft().result()
        self._coming.append(self._thread.submit(self._write, report))
        if self._extras:
            numbers = _numbers(report.flat())
            for logger in self._extras:
                logger.log(numbers, report.step)

    def flush(self) -> None:
        """Wait until the lines of all steps so far are in the file.

        Raises:
            StoreError: The disk is full.
        """
        while self._coming:
            self._coming.popleft().result()

    def close(self) -> None:
        """Write what is left and close everything.

        Raises:
            StoreError: The disk is full.
        """
        for logger in self._extras:
            logger.close()
        self._thread.shutdown()
        try:
            with writing(self._path):
                self._lines.close()
                self._board.close()
            self.flush()
        finally:
            threading.excepthook = self._hook

    def _write(self, report: StepReport) -> None:
        flat = report.flat()
        with writing(self._path):
            self._lines.write(strict_json(flat) + "\n")
            self._lines.flush()
            for key, value in _numbers(flat).items():
                self._board.add_scalar(key, value, report.step)


def _numbers(flat: Mapping[str, Any]) -> dict[str, Any]:
    """What has a curve."""
    return {key: value for key, value in flat.items() if isinstance(value, (int, float)) and key != "step"}


def _without_full_disk(
    hook: Callable[[threading.ExceptHookArgs], object],
) -> Callable[[threading.ExceptHookArgs], None]:
    """A hook that leaves out what TensorBoard's thread cannot write: the next call into it raises that error here."""

    def told(found: threading.ExceptHookArgs) -> None:
        modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(found.exc_traceback)]
        theirs = any(module.startswith("tensorboard.") for module in modules)
        if not (theirs and issubclass(found.exc_type, OSError)):
            hook(found)

    return told


def strict_json(flat: Mapping[str, Any]) -> str:
    """One JSON object; a number that is not finite is null, since JSON has no word for it."""
    return json.dumps({key: None if _not_finite(value) else value for key, value in flat.items()}, allow_nan=False)


def _not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _keep_lines(path: Path, start: int) -> None:
    """Drop what was written after the checkpoint that the run goes on from."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            if parse_json(line)["step"] <= start:
                kept.append(line)
        except (ValueError, KeyError, TypeError):  # the last line of a killed process may be cut
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(b"".join(line + b"\n" for line in kept))
    os.replace(temporary, path)  # noqa: PTH105 - the atomic one
