"""FSDP2 with the loss over prototypes in parts and by kernels: losses and gradients of one process with the formula."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tests.kernels import need_triton
from tests.train import ranks
from tests.train.streams import MemoryStream
from train import loop
from train.distributed import join_world
from train.objectives.cross_entropy import _CrossEntropy, plain_cross_entropy
from train.recipe import Recipe
from train.run import pretrain

pytestmark = [pytest.mark.slow, pytest.mark.torch]

STEPS = 2
RECIPES = ("dino-ema", "dino-sinkhorn")
KERNELS = ("torch", *(["triton"] if find_spec("triton") else []))


def small(name: str, parallel: str) -> Recipe:
    recipe = ranks.with_parallel(ranks.recipes()[name], parallel)
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"steps": STEPS})})


def train(recipe: Recipe, out: Path, *, by: str, in_parts: bool) -> None:
    """Train, and write the gradients of the first step and how often the loss was computed in parts or by kernels.

    Augmentation is by the same kernels whether the loss is in parts or by its formula.
    """
    clip, compute = loop.clip_each, _CrossEntropy.apply
    gradients: dict[str, np.ndarray] = {}
    calls = 0

    def clipped(modules: Mapping[str, nn.Module], max_norm: float | None) -> dict[str, Tensor]:
        if not gradients:
            for part, module in modules.items():
                gradients.update({f"{part}.{key}": whole(one.grad) for key, one in module.named_parameters()})
        return clip(modules, max_norm)

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return compute(*arguments)

    def formula(logits: Tensor, probabilities: Tensor, *, temperature: float, by: str) -> Tensor:
        del by
        return plain_cross_entropy(logits, probabilities, temperature=temperature)

    with ExitStack() as stack:
        stack.enter_context(patch("train.run.choose_kernels", lambda _: (by, "")))
        stack.enter_context(patch("train.loop.clip_each", clipped))
        stack.enter_context(patch("train.objectives.cross_entropy._CHUNK_VALUES", 100))  # one row or two at a time
        stack.enter_context(patch.object(_CrossEntropy, "apply", counted))
        for objective in () if in_parts else ("dino", "ibot"):
            stack.enter_context(patch(f"train.objectives.{objective}.cross_entropy", formula))
        pretrain(recipe, data="memory", out=out, stream=MemoryStream)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        np.savez(out / "gradients.npz", **gradients)  # type: ignore[arg-type]
        (out / "calls.json").write_text(json.dumps(calls))


def whole(gradient: Tensor | None) -> np.ndarray:
    """A gradient with the shards of all ranks; empty where there is none."""
    if gradient is None:
        return np.empty(0)
    return (gradient.full_tensor() if isinstance(gradient, DTensor) else gradient).numpy().copy()


def main(out: Path) -> None:
    """What each of two ranks does."""
    torch.set_num_threads(1)
    with join_world():
        for name in RECIPES:
            for by in KERNELS:
                train(small(name, "fsdp"), out / f"{name}-{by}-two", by=by, in_parts=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sharded")
    for name in RECIPES:
        for by in KERNELS:
            train(small(name, "ddp"), folder / f"{name}-{by}-one", by=by, in_parts=False)
    ranks.launch(folder, module="tests.train.test_sharded_loss")
    return folder


@pytest.mark.parametrize("by", ["torch", "triton"])
@pytest.mark.parametrize("name", RECIPES)
def test_sharded_ranks_have_the_losses_and_gradients_of_the_formula(name: str, by: str, out: Path) -> None:
    if by == "triton":
        need_triton()
    one, two = out / f"{name}-{by}-one", out / f"{name}-{by}-two"
    assert json.loads((one / "calls.json").read_text()) == 0
    assert json.loads((two / "calls.json").read_text()) >= 3 * STEPS  # local crops, global crops, patches
    near = 1e-5 if by == "torch" else 5e-5
    for mine, plain in zip(steps(two), steps(one), strict=True):
        for key, value in plain.items():
            if key.startswith(("loss", "grad_norm")):
                assert mine[key] == pytest.approx(value, rel=near, abs=near), (plain["step"], key)
    got, want = dict(np.load(two / "gradients.npz")), dict(np.load(one / "gradients.npz"))
    assert got.keys() == want.keys()
    assert sum(value.any() for value in want.values()) > 10
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-3, atol=1e-5, err_msg=key)


def steps(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
