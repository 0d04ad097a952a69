"""The order of an epoch: complete, elastic, resumable, cheap at any size."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import ConfigError
from shards.stream.order import EpochOrder, OrderSettings, default_lanes

COUNTS = np.array([7, 1, 30, 12, 0, 55, 3, 18, 24, 50], dtype=np.int64)


def flat(order: EpochOrder, index: int, *, rank: int = 0, world_size: int = 1) -> list[tuple[int, int]]:
    shards, rows = order.batch(index, rank=rank, world_size=world_size)
    return list(zip(shards.tolist(), rows.tolist(), strict=True))


def epoch(order: EpochOrder) -> list[tuple[int, int]]:
    return [sample for index in range(order.num_batches) for sample in flat(order, index)]


@pytest.mark.slow
@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=30),
    global_batch=st.integers(1, 24),
    window=st.integers(1, 50),
    seed=st.integers(0, 2**63),
)
@settings(deadline=None, max_examples=60)
def test_every_sample_at_most_once_and_all_but_the_last_batch(
    counts: list[int], global_batch: int, window: int, seed: int
) -> None:
    total = sum(counts)
    how = OrderSettings(seed=seed, global_batch=global_batch, window=window)
    if total < global_batch:
        with pytest.raises(ConfigError, match="fewer than the global batch"):
            EpochOrder(np.array(counts), how, 0)
        return
    samples = epoch(EpochOrder(np.array(counts), how, 0))
    assert len(samples) == len(set(samples)) == total // global_batch * global_batch
    assert all(0 <= row < counts[shard] for shard, row in samples)


def test_padding_repeats_only_what_fills_the_last_batch() -> None:
    samples = epoch(EpochOrder(COUNTS, OrderSettings(global_batch=32, last="pad"), 0))
    assert len(samples) == 224
    assert len(set(samples)) == 200


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 8, 24])
@pytest.mark.parametrize("num_lanes", [0, 1, 6])
def test_ranks_split_every_global_batch(world_size: int, num_lanes: int) -> None:
    order = EpochOrder(COUNTS, OrderSettings(global_batch=24, num_lanes=num_lanes, window=16), 3)
    for index in range(order.num_batches):
        parts = [flat(order, index, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert [sample for part in parts for sample in part] == flat(order, index)
        keys = [order.seeds(index, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate(keys), order.seeds(index))


def test_a_rank_reads_its_own_shards() -> None:
    counts = np.full(64, 100, dtype=np.int64)
    order = EpochOrder(counts, OrderSettings(global_batch=64, window=50), 0)
    seen = [
        {shard for index in range(order.num_batches) for shard, _ in flat(order, index, rank=rank, world_size=8)}
        for rank in range(8)
    ]
    assert sum(map(len, seen)) <= 64 + 7


def test_epochs_and_seeds_differ_and_repeat() -> None:
    how = OrderSettings(seed=5, global_batch=20)
    first = epoch(EpochOrder(COUNTS, how, 0))
    assert first == epoch(EpochOrder(COUNTS, how, 0))
    assert first != epoch(EpochOrder(COUNTS, how, 1))
    assert first != epoch(EpochOrder(COUNTS, OrderSettings(seed=6, global_batch=20), 0))


def test_a_batch_needs_no_history() -> None:
    how = OrderSettings(global_batch=20, window=8)
    straight = EpochOrder(COUNTS, how, 0)
    for index in range(straight.num_batches):
        flat(straight, index)
    assert flat(EpochOrder(COUNTS, how, 0), 9) == flat(straight, 9)


def test_substitutes_are_samples_and_the_same_for_all() -> None:
    order = EpochOrder(COUNTS, OrderSettings(global_batch=20), 0)
    drawn = [order.substitute(3, 7, attempt) for attempt in range(50)]
    assert drawn == [order.substitute(3, 7, attempt) for attempt in range(50)]
    assert len(set(drawn)) > 30
    assert all(row < COUNTS[shard] for shard, row in drawn)


def test_a_batch_mixes_the_whole_epoch() -> None:
    counts = np.full(200, 100, dtype=np.int64)
    order = EpochOrder(counts, OrderSettings(global_batch=256), 0)
    shards = [shard for shard, _ in flat(order, 0)]
    assert len(set(shards)) >= 60


def test_two_hundred_million_samples_take_the_memory_of_their_shards() -> None:
    import tracemalloc

    counts = np.full(140_000, 1_430, dtype=np.int64)
    tracemalloc.start()
    order = EpochOrder(counts, OrderSettings(global_batch=4096), 0)
    flat(order, order.num_batches // 2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert order.num_samples > 200_000_000
    assert peak < 64e6


@pytest.mark.parametrize(
    ("values", "message"),
    [({"global_batch": 10, "num_lanes": 3}, "3 lanes do not divide"), ({"global_batch": 0}, "must be at least 1")],
)
def test_wrong_settings_say_so(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OrderSettings(**values)


def test_ranks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 ranks do not divide the global batch 24"):
        EpochOrder(COUNTS, OrderSettings(global_batch=24), 0).batch(0, rank=0, world_size=5)


def plain_default_lanes(global_batch: int, most: int) -> int:
    """What the function's first sentence says, word by word."""
    divisors = [lanes for lanes in range(1, global_batch + 1) if global_batch % lanes == 0]
    below = max(lanes for lanes in divisors if lanes <= most)
    return below if below >= min(16, global_batch) else min(lanes for lanes in divisors if lanes > most)


@pytest.mark.parametrize("most", [1, 4, 15, 16, 64, 100, 1024])
def test_default_lanes_are_those_of_the_plain_definition(most: int) -> None:
    for batch in range(1, 1200):
        assert default_lanes(batch, most) == plain_default_lanes(batch, most)


def test_default_lanes_of_huge_batches_are_found_at_once() -> None:
    began = time.perf_counter()
    assert default_lanes(4_000_000_000) == 64
    assert default_lanes(10**18, 65_536) == 65_536
    assert default_lanes(2 * 1_000_003 * 1_000_033) == 1_000_003  # both prime
    assert default_lanes(2_147_483_647) == 2_147_483_647
    assert time.perf_counter() - began < 5


def test_default_lanes_divide() -> None:
    assert [default_lanes(batch) for batch in (1, 7, 64, 96, 256, 2048, 131)] == [1, 7, 64, 48, 64, 64, 131]


def test_more_lanes_are_the_locks_choice() -> None:
    assert [default_lanes(batch, 1024) for batch in (16_384, 2048, 256, 96, 131)] == [1024, 1024, 256, 96, 131]
    assert default_lanes(65_536, 4096) == 4096


def test_a_rank_with_a_lane_of_its_own_reads_nobody_elses_rows() -> None:
    counts = np.full(400, 100, dtype=np.int64)
    settings = OrderSettings(global_batch=1024, num_lanes=default_lanes(1024, 128), window=64)
    order = EpochOrder(counts, settings, 3)
    seen: list[set[tuple[int, int]]] = []
    for rank in (0, 1, 77):
        rows: set[tuple[int, int]] = set()
        for index in range(order.num_batches):
            shards, places = order.batch(index, rank=rank, world_size=128)
            rows |= set(zip(shards.tolist(), places.tolist(), strict=True))
        seen.append(rows)
        assert len({shard for shard, _ in rows}) <= len(rows) // 100 + 2
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
