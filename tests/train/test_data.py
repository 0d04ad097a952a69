"""How many threads decode for a rank, where the recipe leaves it open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from train.data import decode_threads


@pytest.mark.parametrize(
    ("cores", "ranks", "device", "threads"),
    [
        (16, 1, "cpu", 16),
        (16, 1, "cuda", 15),
        (16, 8, "cuda", 1),
        (4, 8, "cuda", 1),
        (4, 8, "cpu", 1),
        (12, 2, "cpu", 6),
    ],
)
def test_a_rank_decodes_by_its_share_of_the_cores(
    cores: int, ranks: int, device: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
    somewhere: Any = SimpleNamespace(type=device)
    assert decode_threads(somewhere) == threads
