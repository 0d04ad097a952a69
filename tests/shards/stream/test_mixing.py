"""Mixing: exact proportions in every prefix, at any position, on any topology."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.errors import ConfigError
from shards.stream.mixing import MixedOrder, Mixture, prefix_counts
from shards.stream.order import OrderSettings

COUNTS = np.array([40, 40, 40, 100, 20, 5, 11], dtype=np.int64)
GROUPS = ["CT", "CT", "CT", "US", "US", "MR", "MR"]
WEIGHTS = {"CT": 1.0, "US": 1.0, "MR": 2.0}


def order(epoch: int = 0, **more: object) -> MixedOrder:
    mixture = Mixture.model_validate({"weights": WEIGHTS, **more})
    return MixedOrder(COUNTS, GROUPS, OrderSettings(seed=1, global_batch=24, window=4), mixture, epoch)


@given(shares=st.lists(st.floats(0.001, 1), min_size=1, max_size=12), start=st.integers(0, 10**12))
@settings(deadline=None, max_examples=50)
def test_every_prefix_has_the_exact_proportions(shares: list[float], start: int) -> None:
    weights = np.array(shares) / sum(shares)
    numbers = np.arange(start, start + 500)
    counts = prefix_counts(numbers, weights)
    steps = np.diff(counts, axis=0)
    assert (counts.sum(axis=1) == numbers).all()
    assert ((steps == 0) | (steps == 1)).all()
    levels = (len(shares) - 1).bit_length()
    assert np.abs(counts - numbers[:, None] * weights).max() <= levels / 2 + 0.001


def test_batches_hold_the_weights() -> None:
    mixed = order()
    for index in range(mixed.num_batches):
        shards, _ = mixed.batch(index)
        assert Counter(GROUPS[shard] for shard in shards.tolist()) == {"CT": 6, "US": 6, "MR": 12}


def test_each_group_is_seen_whole_before_it_repeats() -> None:
    seen = []
    for epoch in range(3):
        mixed = order(epoch)
        for index in range(mixed.num_batches):
            shards, rows = mixed.batch(index)
            seen += [pair for pair in zip(shards.tolist(), rows.tolist(), strict=True) if GROUPS[pair[0]] == "MR"]
    for start in range(0, len(seen) - 16, 16):
        assert len(set(seen[start : start + 16])) == 16
    assert seen[:16] != seen[16:32]


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
def test_ranks_split_every_batch(world_size: int) -> None:
    mixed = order()
    for index in range(3):
        whole = mixed.batch(index)
        parts = [order().batch(index, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate([part[0] for part in parts]), whole[0])
        assert np.array_equal(np.concatenate([part[1] for part in parts]), whole[1])


def test_a_batch_needs_no_history() -> None:
    walked = order(epoch=2)
    for index in range(5):
        walked.batch(index)
    assert np.array_equal(order(epoch=2).batch(5)[1], walked.batch(5)[1])


def test_temperature_flattens() -> None:
    sizes = np.array([900, 100])
    assert np.allclose(Mixture().shares(["a", "b"], sizes), [0.9, 0.1])
    assert np.allclose(Mixture(temperature=2).shares(["a", "b"], sizes), [0.75, 0.25])
    assert np.allclose(Mixture(temperature=1e9).shares(["a", "b"], sizes), [0.5, 0.5])


@pytest.mark.parametrize("weights", [{"CT": 1.0}, {**WEIGHTS, "NM": 1.0}, {**WEIGHTS, "MR": 0.0}])
def test_weights_that_do_not_fit_say_so(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="one positive weight for each of CT, MR, US"):
        order(weights=weights)
