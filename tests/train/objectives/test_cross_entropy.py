"""The cross-entropy over prototypes: torch in parts and Triton's kernel against the plain formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels import DRAWN, compiles_for_a_gpu, need_triton
from tests.train.recipes import dino_recipe
from train.distributed import autocast
from train.methods import build_method
from train.objectives import cross_entropy as module
from train.objectives.cross_entropy import cross_entropy, plain_cross_entropy
from train.objectives.dino import dino_losses
from train.objectives.ibot import ibot_loss
from train.randomness import Share
from train.schedules import schedule

pytestmark = pytest.mark.torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = {
    "num_targets": st.integers(1, 4),
    "groups": st.integers(0, 3),
    "prototypes": st.integers(1, 300),
    "temperature": st.sampled_from([0.04, 0.1, 1.0]),
    "seed": st.integers(0, 2**31),
}


def with_gradient(
    function: Any, logits: torch.Tensor, *rest: Any, **settings: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and the gradient of the logits, each row with a weight of its own."""
    leaf = logits.clone().requires_grad_()
    losses = function(leaf, *rest, **settings)
    (losses * torch.linspace(-1, 2, len(losses), device=losses.device)).sum().backward()
    assert leaf.grad is not None
    return losses.detach(), leaf.grad


def compare(by: str, dtype: torch.dtype, *, num_targets: int, groups: int, prototypes: int, **more: Any) -> None:
    generator = torch.Generator().manual_seed(more["seed"])
    logits = torch.randn(num_targets * groups, prototypes, generator=generator).to(DEVICE, dtype)
    targets = torch.softmax(3 * torch.randn(num_targets, prototypes, generator=generator), -1).to(DEVICE)
    targets *= torch.linspace(0, 2, num_targets, device=DEVICE)[:, None]  # rows of any mass, one of none
    temperature = more["temperature"]
    want = with_gradient(plain_cross_entropy, logits, targets, temperature=temperature)
    got = with_gradient(cross_entropy, logits, targets, temperature=temperature, by=by)
    assert got[0].dtype == torch.float32
    assert got[1].dtype == dtype
    torch.testing.assert_close(got[0], want[0], rtol=1e-5, atol=5e-5 if by == "triton" else 0)
    exact = dtype == torch.float32
    torch.testing.assert_close(got[1], want[1], rtol=1e-4 if exact else 1e-2, atol=1e-4 if exact else 1e-2)


@pytest.mark.parametrize("chunk", [0, 500, 1 << 22])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=20, deadline=None)
@given(sizes=st.fixed_dictionaries(SIZES))
def test_torch_in_parts_equals_the_formula(chunk: int, dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_VALUES", chunk)
        compare("torch", dtype, **sizes)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@DRAWN
@given(sizes=st.fixed_dictionaries(SIZES))
def test_the_kernel_equals_the_formula(dtype: torch.dtype, sizes: dict[str, Any]) -> None:
    need_triton()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.kernels.triton_cross_entropy._BLOCK", 128)
        compare("triton", dtype, **sizes)


def test_large_logits_overflow_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0], [-3e4, -3e4, -3e4]], device=DEVICE)
    targets = torch.tensor([[1.0, 0.0, 0.0]], device=DEVICE)
    monkeypatch.setattr(module, "_CHUNK_VALUES", 3)
    losses, gradient = with_gradient(cross_entropy, logits, targets, temperature=0.1)
    torch.testing.assert_close(losses, torch.tensor([0.0, math.log(3)], device=DEVICE))
    assert gradient.isfinite().all()


class Largest(TorchDispatchMode):
    """Counts results that are as large as the logits."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values, self.count = values, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        new = isinstance(result, torch.Tensor) and not any(
            isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() == result.untyped_storage().data_ptr()
            for one in args
        )
        self.count += new and result.numel() >= self.values
        return result


def test_only_the_gradient_is_as_large_as_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_VALUES", 1 << 10)
    logits = torch.randn(32, 256)
    targets = torch.softmax(torch.randn(32, 256), -1)
    counts = []
    for function in (plain_cross_entropy, cross_entropy):
        leaf = logits.clone().requires_grad_()
        with Largest(logits.numel()) as seen:
            function(leaf, targets, temperature=0.1).sum().backward()
        counts.append(seen.count)
    assert counts[1] == 1
    assert counts[0] > 4


@pytest.mark.slow
def test_both_objectives_are_the_same_by_kernels() -> None:
    need_triton()
    generator = torch.Generator().manual_seed(0)
    student = [torch.randn(rows, 33, generator=generator).to(DEVICE) for rows in (4, 6)]
    targets = torch.softmax(torch.randn(4, 33, generator=generator), -1).to(DEVICE)
    want, got = (dino_losses(*student, targets, temperature=0.1, by=by) for by in ("torch", "triton"))  # type: ignore[arg-type]
    torch.testing.assert_close((got.local, got.global_), (want.local, want.global_))
    weights = torch.rand(4, generator=generator).to(DEVICE)
    one, other = (
        ibot_loss(student[0], targets, weights, num_crops=3, temperature=0.1, by=by)  # type: ignore[arg-type]
        for by in ("torch", "triton")
    )
    torch.testing.assert_close(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_in_parts_has_the_gradients_of_a_step(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = dino_recipe(run={"precision": precision})
    of = Share(seed=1, step=2, first_unit=0, num_units=2, unit_images=2)
    generator = torch.Generator().manual_seed(0)
    views = [
        torch.randint(256, (4, crop.num, crop.size_px, crop.size_px, 3), dtype=torch.uint8, generator=generator)
        for crop in recipe.crops()
    ]
    totals, gradients = [], []
    for chunk in (1 << 22, 0):
        monkeypatch.setattr(module, "_CHUNK_VALUES", chunk)
        torch.manual_seed(0)
        method = build_method(recipe)
        inputs = method.prepare(views, of)
        with autocast(recipe.run, torch.device("cpu")):
            losses = method.losses(method.network, inputs, schedule(recipe, 2))
        losses.total.backward()
        totals.append(losses.total.detach())
        gradients.append([one.grad for one in method.network.parameters() if one.grad is not None])
    torch.testing.assert_close(totals[1], totals[0])
    assert gradients[0]
    near = 1e-5 if precision == "fp32" else 1e-3
    for mine, plain in zip(gradients[1], gradients[0], strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-3 if precision == "fp32" else 2e-2, atol=near)


@pytest.mark.slow
def test_the_compiler_sees_the_plain_formula() -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    compiled = torch.compile(cross_entropy, backend=backend, fullgraph=True)
    logits, targets = torch.randn(4, 8), torch.softmax(torch.randn(2, 8), -1)
    got = compiled(logits, targets, temperature=0.1)
    torch.testing.assert_close(got, cross_entropy(logits, targets, temperature=0.1))
    assert any("log_softmax" in name for name in seen)


@pytest.mark.slow
@pytest.mark.process
def test_it_compiles_for_a_gpu() -> None:
    need_triton()
    sizes = {"temperature": "fp32", "num_targets": "i32", "prototypes": "i32"}
    common = {"logits": "*bf16", "targets": "*fp32", "log_sums": "*fp32", "masses": "*fp32"}
    kernels = [
        ("_forward", common | {"losses": "*fp32"} | sizes, {"block": 4096}),
        ("_backward", common | {"scale": "*fp32", "out": "*bf16"} | sizes, {"block": 4096}),
    ]
    compiles_for_a_gpu("train.kernels.triton_cross_entropy", kernels)
