"""Training, validation and test splits in which no group (patient, examination, slide) is on two sides.

Whole groups are dealt out, class by class (of a group: its most frequent one), in an order that a hash of the seed and
the group decides: the split of a group depends on nothing but the groups of its class, and is the same on any machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from eval.medmnist.data import SplitName
from shards.errors import ConfigError

SHARES: Final[dict[SplitName, float]] = {"test": 0.2, "val": 0.1, "train": 0.7}
"""Shares of the images, in the order in which the splits are filled."""


def split_groups(groups: Sequence[str], strata: Sequence[int], *, seed: int = 0) -> list[SplitName]:
    """The split of each image.

    Args:
        groups: Group of each image.
        strata: Class of each image; one number for all where classes mean nothing.
        seed: Another seed is another split.

    Returns:
        One split per image. A class with three groups or more is in all three splits.
    """
    sizes = Counter(groups)
    classes: dict[str, Counter[int]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        classes[group][stratum] += 1
    by_class: dict[int, list[str]] = defaultdict(list)
    for group, found in classes.items():
        by_class[min(found, key=lambda stratum: (-found[stratum], stratum))].append(group)
    split: dict[str, SplitName] = {}
    for members in by_class.values():
        ordered = sorted(members, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
        split |= _deal(ordered, sizes)
    return [split[group] for group in groups]


def _deal(groups: Sequence[str], sizes: Counter[str]) -> dict[str, SplitName]:
    """Fill test, then validation, each with one group at least; the rest is for training, one group at least."""
    total = sum(sizes[group] for group in groups)
    found: dict[str, SplitName] = {}
    left = list(groups)
    for name in ("test", "val"):
        split: SplitName = "test" if name == "test" else "val"
        taken = 0
        while len(left) > (2 if split == "test" else 1) and taken < SHARES[split] * total:
            if taken and taken + sizes[left[0]] / 2 > SHARES[split] * total:
                break
            taken += sizes[left[0]]
            found[left.pop(0)] = split
    return found | dict.fromkeys(left, "train")


def check_splits(groups: Sequence[str], splits: Sequence[str]) -> None:
    """Refuse splits of a person's own that put one group on two sides.

    Raises:
        ConfigError: There is such a group; only counts are named.
    """
    sides: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(groups, splits, strict=True):
        sides[group].add(split)
    if torn := sum(len(found) > 1 for found in sides.values()):
        raise ConfigError(
            f"{torn} of {len(sides)} groups have images in two splits: a probe would know its test patients",
            hint="leave the split column out, and whole groups are dealt out",
        )
