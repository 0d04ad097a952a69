"""A few damaged inputs of every target of the fuzzer, the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.ingest.raw.fuzz import TARGETS, damaged, run_target

pytestmark = pytest.mark.process


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs_give_files_rows_or_a_reason(name: str, tmp_path: Path) -> None:
    assert run_target(name, 0.3, seed=1, keep=tmp_path) >= 1


def test_damage_is_the_same_for_the_same_seed() -> None:
    data = bytes(range(256))
    copies = {damaged(data, np.random.default_rng(7)) for _ in range(3)}
    assert len(copies) == 1
    assert copies != {data}
