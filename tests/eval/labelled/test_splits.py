"""No group is on two sides, whatever the groups."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.labelled.splits import check_splits, split_groups
from shards.errors import ConfigError


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=200),
    st.integers(0, 5),
)
def test_groups_stay_whole_and_splits_repeat(images: list[tuple[int, int]], seed: int) -> None:
    groups, strata = [f"g{group}" for group, _ in images], [stratum for _, stratum in images]
    splits = split_groups(groups, strata, seed=seed)
    check_splits(groups, splits)
    again = split_groups(groups[::-1], strata[::-1], seed=seed)
    assert again[::-1] == splits


def test_shares_and_classes() -> None:
    groups = [f"patient {number // 5}" for number in range(2000)]
    strata = [number // 5 % 4 == 0 for number in range(2000)]
    splits = split_groups(groups, [int(value) for value in strata])
    share = {name: splits.count(name) / len(splits) for name in ("train", "val", "test")}
    assert share == pytest.approx({"train": 0.7, "val": 0.1, "test": 0.2}, abs=0.01)
    for name in share:
        inside = [stratum for stratum, split in zip(strata, splits, strict=True) if split == name]
        assert sum(inside) / len(inside) == pytest.approx(0.25, abs=0.03)
    assert split_groups(groups, [int(value) for value in strata], seed=1) != splits


def test_a_class_of_three_groups_is_in_all_splits() -> None:
    assert sorted(split_groups(["a", "b", "c"], [0, 0, 0])) == ["test", "train", "val"]
    assert split_groups(["a"], [0]) == ["train"]


def test_one_large_group_does_not_empty_training() -> None:
    groups = ["big"] * 90 + ["b", "c", "d"]
    by_split = defaultdict(set)
    for group, split in zip(groups, split_groups(groups, [0] * len(groups)), strict=True):
        by_split[split].add(group)
    assert set(by_split) == {"train", "val", "test"}


def test_a_torn_group_is_refused_without_its_name() -> None:
    with pytest.raises(ConfigError, match="1 of 2 groups have images in two splits") as caught:
        check_splits(["secret", "secret", "other"], ["train", "test", "val"])
    assert "secret" not in str(caught.value)
