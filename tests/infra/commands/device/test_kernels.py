"""The benchmark of kernels, with a few small crops in Triton's interpreter where there is no GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infra.commands.device import kernels as bench
from infra.commands.device.parts import Skipped, run_parts
from shards.decode import Crops
from tests.kernels import need_triton

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")


def test_without_a_gpu_the_parts_say_so() -> None:
    outcomes = list(run_parts(bench.kernel_parts(CPU), seconds=60))
    assert [outcome.name for outcome in outcomes] == ["crop kernel", "colour kernel"]
    assert {(outcome.verdict, outcome.detail) for outcome in outcomes} == {("skipped", "needs a GPU")}


def test_where_triton_does_not_work_the_reason_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOVFM_KERNELS", "torch")
    with pytest.raises(Skipped, match="BIOVFM_KERNELS=torch"):
        bench.crop_kernel(torch.device("cuda", 0))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["crop_kernel", "colour_kernel"])
def test_rate_and_difference_are_measured(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_triton()
    monkeypatch.setattr(bench, "_need_triton", lambda _: None)
    monkeypatch.setattr(bench, "BATCH", 1)
    monkeypatch.setattr(bench, "IMAGE_PX", 24)
    monkeypatch.setattr(bench, "stream_crops", lambda _: [Crops(num=2, size_px=16), Crops(num=1, size_px=8)])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a card")
    detail, figures = getattr(bench, part)(CPU, seconds=0.01)
    assert figures["images_per_second"] > 0
    assert figures["largest_difference"] <= {"crop_kernel": 1, "colour_kernel": 1e-3}[part]
    assert "from torch" in detail


@pytest.mark.parametrize(
    ("difference", "rate", "card", "good"),
    [
        (1.0, 20_000, "NVIDIA H100 80GB HBM3", True),
        (2.0, 20_000, "NVIDIA H100 80GB HBM3", False),
        (1.0, 19_999, "NVIDIA H100 80GB HBM3", False),
        (1.0, 5_000, "NVIDIA L4", True),
    ],
)
def test_the_goal_is_for_one_card_the_difference_for_all(difference: float, rate: float, card: str, good: bool) -> None:
    figures: dict[str, Any] = {"largest_difference": difference, "images_per_second": rate, "card": card}
    assert bench._is_good("crop kernel", figures) is good
