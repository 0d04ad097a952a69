"""Ranks that start at any moment agree on a name, whatever earlier rounds left; a busy first rank is waited for."""

from __future__ import annotations

import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.distributed import HashStore  # type: ignore[attr-defined]  # torch does not list it

from shards.errors import TrainingError
from tests.train.ranks import launch
from train.distributed import join_world, on_first_rank
from train.meeting import meet

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("seed", range(3))
def test_ranks_of_each_round_agree_on_a_new_name(seed: int) -> None:
    store, rng = HashStore(), random.Random(seed)
    seen: set[str] = set()
    for size in (3, 2, 3):

        def arrive(rank: int, after: float, size: int = size) -> str:
            time.sleep(after)
            return meet(store, rank=rank, size=size, seconds=20)

        with ThreadPoolExecutor(size) as pool:
            running = [pool.submit(arrive, rank, rng.random() * 0.3) for rank in range(size)]
            names = {one.result() for one in running}
        assert len(names) == 1
        assert not names & seen
        seen |= names


def test_a_rank_that_does_not_come_is_an_error_and_the_next_round_meets() -> None:
    store = HashStore()
    for rank in (0, 1):
        with pytest.raises(TrainingError, match=f"rank {rank} waited"):
            meet(store, rank=rank, size=3, seconds=0.3)
    with ThreadPoolExecutor(2) as pool:
        second = pool.submit(meet, store, rank=1, size=2, seconds=20)
        assert meet(store, rank=0, size=2, seconds=20) == second.result()


@pytest.mark.slow
def test_a_first_rank_may_work_longer_than_a_collective_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIOVFM_COLLECTIVE_SECONDS", "3")
    launch(tmp_path, module="tests.train.test_meeting")
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["[0, 1]"] * 2


def main(out: Path) -> None:
    """What each rank of that test does: the first sleeps where only it works."""
    with join_world() as world:
        on_first_rank(world, lambda: time.sleep(7))
        everyone = [None] * world.size
        dist.all_gather_object(everyone, world.rank)
        (out / str(world.rank)).write_text(str(everyone))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
