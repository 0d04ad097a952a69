"""The training thread's work beside the model."""

from __future__ import annotations

import pytest

from infra.bench.step_overhead import measure

pytestmark = pytest.mark.torch


@pytest.mark.slow
def test_a_step_takes_the_training_thread_some_milliseconds_beside_the_model_at_most() -> None:
    """On a machine that does nothing else it is about one; other programs on the same cores make it several."""
    figures = measure(steps=25)
    assert 0 < figures["least_beside_ms"] <= figures["beside_ms"]
    assert figures["model_ms"] > 0
    assert figures["least_beside_ms"] < 6
