"""What a step costs the training thread beside the model: batches, schedules, figures, reports and logs.

    python -m infra.bench.step_overhead [--steps 60]

A small MAE trains on batches of 64 images. Counted is the processor time of the training thread (`time.thread_time`)
from report to report, less what it spends in the model: augmentation, forward and backward pass, clipping, and the
optimiser with what torch wraps around its step. What is left is taking the batch, schedules, checksums, the step's
figures, the report, and freeing the graph of the backward pass; other threads, such as the one that writes the report,
are not counted. Printed are the median and the least of the steps, in milliseconds, as one JSON object.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Final
from unittest.mock import patch

import torch

from infra.commands.device.images import TarStream, drawn_jpegs
from shards.decode import open_decoder
from train.data import stream_crops
from train.recipe import Recipe
from train.recipe_files import load_recipe
from train.run import pretrain

__all__ = ["measure"]

MODEL: Final = (
    "train.methods.mae.Mae.prepare",
    "train.methods.mae.Mae.losses",
    "train.methods.mae.Mae.update_teacher",
    "train.loop.clip_each",
    "torch.Tensor.backward",
    "torch.optim.AdamW.step",
    "torch.optim.AdamW.zero_grad",
)
"""Where a step computes."""
WARM_UP: Final = 5
_CHANGES: Final[dict[str, Any]] = {
    "model.size": "nano",
    "method.crop.size_px": 32,
    "model.patch_size": 8,
    "run.global_batch": 64,
    "run.unit_images": 32,
    "run.precision": "fp32",
}


class _Clock:
    """Processor seconds of the calling thread inside the functions that it wraps, the outermost of them alone."""

    def __init__(self) -> None:
        self.inside = 0.0
        self._depth = 0

    def wrapped(self, function: Any) -> Any:
        @functools.wraps(function)
        def timed(*arguments: Any, **settings: Any) -> Any:
            began, self._depth = time.thread_time(), self._depth + 1
            try:
                return function(*arguments, **settings)
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self.inside += time.thread_time() - began

        return timed


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    print(json.dumps(measure(steps=parser.parse_args().steps)))


def measure(*, steps: int) -> dict[str, float]:
    """Milliseconds of a step beside the model (median and least) and in it (median), after some steps of warming up."""
    recipe = load_recipe("tiny", {**_CHANGES, "run.steps": steps})
    clock, marks = _Clock(), []
    torch.optim.AdamW([torch.zeros(1)])  # the first one wraps the class's `step` for profilers: that is to be inside
    with ExitStack() as stack:
        for name in MODEL:
            stack.enter_context(patch(name, clock.wrapped(resolve_name(name))))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        pretrain(
            recipe,
            data="drawn",
            out=Path(folder) / "run",
            stream=_stream,
            progress=lambda _: marks.append((time.thread_time(), clock.inside)),
        )
    inside = [1000 * (now - before) for (_, before), (_, now) in itertools.pairwise(marks[WARM_UP:])]
    whole = [1000 * (now - before) for (before, _), (now, _) in itertools.pairwise(marks[WARM_UP:])]
    beside = [all_of_it - model for all_of_it, model in zip(whole, inside, strict=True)]
    return {
        "beside_ms": round(statistics.median(beside), 3),
        "least_beside_ms": round(min(beside), 3),
        "model_ms": round(statistics.median(inside), 3),
    }


def _stream(recipe: Recipe, _data: str, _rank: int, world_size: int) -> TarStream:
    """A stream of a few images; its decoding is other threads' work."""
    return TarStream(
        drawn_jpegs(16, side=48),
        crops=stream_crops(recipe),
        global_batch=recipe.run.global_batch // world_size,
        decoder=open_decoder("auto"),
        threads=1,
    )


if __name__ == "__main__":
    main()
