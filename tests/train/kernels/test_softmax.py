"""The kernel of the teacher's softmax against torch; in Triton's interpreter without a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import DRAWN, compiles_for_a_gpu, need_triton
from train.objectives.targets import EmaCenter

pytestmark = [pytest.mark.torch, pytest.mark.slow]
need_triton()

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@DRAWN
@given(
    rows=st.integers(0, 5),
    prototypes=st.integers(1, 300),
    temperature=st.sampled_from([0.04, 0.07, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_the_targets_are_torchs(dtype: torch.dtype, rows: int, prototypes: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(rows, prototypes, generator=generator)).to(DEVICE, dtype)
    made: list[tuple[Any, Any]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.kernels.triton_softmax._BLOCK", 128)
        for by in ("torch", "triton"):
            targets = EmaCenter(prototypes).to(DEVICE)
            targets.center += torch.linspace(-1, 1, prototypes, device=DEVICE)
            targets.temperature = temperature
            probabilities = targets(logits, by=by)  # type: ignore[arg-type]
            targets.move()
            made.append((probabilities, targets.center))
    for want, got in zip(*made, strict=True):
        assert got.dtype == torch.float32
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.process
def test_it_compiles_for_a_gpu() -> None:
    fixed = {"center": "*fp32", "out": "*fp32", "temperature": "fp32", "prototypes": "i32"}
    compiles_for_a_gpu(
        "train.kernels.triton_softmax",
        [("_softmax", {"logits": kind} | fixed, {"block": 4096}) for kind in ("*bf16", "*fp32")],
    )
