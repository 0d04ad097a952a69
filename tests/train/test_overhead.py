"""What a step costs the training thread beside the model: batches, schedules, figures, reports and logs."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.train.recipes import mae_recipe
from tests.train.streams import MemoryBatch, MemoryStream
from train.methods.mae import Mae
from train.run import pretrain

pytestmark = pytest.mark.torch

MOST_SECONDS = 0.001
MODEL = [
    (Mae, "prepare"),
    (Mae, "losses"),
    (Mae, "update_teacher"),
    (Mae, "end_step"),
    (torch.Tensor, "backward"),
    (torch.optim.AdamW, "step"),
    (torch.optim.AdamW, "zero_grad"),
]
"""Where a step computes: augmentation, forward and backward pass, optimiser."""


class OneBatch(MemoryStream):
    """The same batch again and again, since making pictures takes longer than these steps."""

    _made: MemoryBatch | None = None

    def _batch(self, number: int) -> MemoryBatch:
        if self._made is None:
            self._made = super()._batch(0)
        return MemoryBatch(self._made.views, self._made.keys, 0, number)


class Clock:
    """Processor seconds of the calling thread inside the functions that it wraps."""

    def __init__(self) -> None:
        self.inside = 0.0
        self._depth = 0

    def wrapped(self, function: Any) -> Any:
        def timed(*arguments: Any, **settings: Any) -> Any:
            with self._measuring():
                return function(*arguments, **settings)

        return timed

    @contextlib.contextmanager
    def _measuring(self) -> Iterator[None]:
        began, self._depth = time.thread_time(), self._depth + 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.inside += time.thread_time() - began


@pytest.mark.slow
def test_a_step_of_64_images_costs_the_training_thread_a_millisecond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, marks = Clock(), []
    for owner, name in MODEL:
        monkeypatch.setattr(owner, name, clock.wrapped(getattr(owner, name)))
    monkeypatch.setattr("train.loop.clip_each", clock.wrapped(__import__("train.optim", fromlist=["_"]).clip_each))
    recipe = mae_recipe(run={"steps": 40, "global_batch": 64, "unit_images": 32})
    pretrain(
        recipe,
        data="memory",
        out=tmp_path,
        stream=OneBatch,
        progress=lambda _: marks.append((time.thread_time(), clock.inside)),
    )
    beside = [
        now - before - (inside - inside_before)
        for (before, inside_before), (now, inside) in itertools.pairwise(marks[5:])
    ]
    assert len(beside) > 30
    assert clock.inside > 0
    assert statistics.median(beside) <= MOST_SECONDS
