"""The benchmark's training steps, on this machine's CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from infra.commands.device.images import drawn_jpegs
from infra.commands.device.parts import run_parts
from infra.commands.device.rates import decode_parts
from infra.commands.device.steps import Steps, step_parts, thread_counts

pytestmark = pytest.mark.torch

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"method.global_crops.size_px": 32, "method.local_crops.size_px": 16}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mae", "dinov2"])
def test_steps_are_measured_resident_fed_and_by_kernel(method: Any) -> None:
    steps = Steps(CPU, drawn_jpegs(8, side=64), method, "nano", 4, changes=SMALL if method == "dinov2" else None)
    _, resident = steps.resident()
    assert resident["images_per_second"] > 0
    for decode in ("host", "device"):
        _, fed = steps.fed(decode)  # type: ignore[arg-type]
        assert fed["fed_over_resident"] > 0
        assert 0 <= fed["consumer_wait"] < 1
    line, kernels = steps.top_kernels()
    assert "ms per step" in line
    assert sum(one["share"] for one in kernels["kernels"]) <= 1.001
    assert kernels["kernels"][0]["share"] >= kernels["kernels"][-1]["share"] > 0
    steps.release()
    assert steps._loop is None


def test_a_model_that_cannot_be_built_fails_part_by_part() -> None:
    outcomes = list(run_parts(step_parts(CPU, drawn_jpegs(2, side=32), "mae", "no such size", 4), seconds=60))
    found = {one.name.partition(", ")[2]: one.verdict for one in outcomes}
    assert found["resident"] == found["top kernels"] == "failed"
    assert found["fed (host decode)"] == found["host waits"] == found["resident, eager"] == "skipped"


@pytest.mark.slow
def test_decode_rates_have_a_part_a_library_and_a_number_of_threads() -> None:
    parts = decode_parts(CPU, drawn_jpegs(4, side=64))
    outcomes = {one.name: one for one in run_parts(parts, seconds=300)}
    assert outcomes["JPEG engines"].verdict == "skipped"
    rates = [one for one in outcomes.values() if one.verdict == "ok"]
    assert len(rates) == len(parts) - 1
    assert all(one.figures["images_per_second"] > 0 for one in rates)


def test_threads_are_counted_up_to_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, wanted in ((1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert thread_counts() == wanted
