"""A card names the shards of one version: one by one, or by a pattern where a folder holds nothing else."""

from __future__ import annotations

from infra.reports.cards.shard_files import MOST_PATHS, shard_files
from shards.store import MemoryStore


def stored(*paths: str) -> MemoryStore:
    store = MemoryStore()
    for path in paths:
        store.put_if_absent(path, b"")
    return store


def test_few_are_named_one_by_one() -> None:
    shards = ["shards/a/ct/1.tar", "shards/b/us/2.tar"]
    found = shard_files(stored(*shards, "shards/a/ct/old.tar", "shards/a/ct/1.json", "staging/x/3.tar"), shards)
    assert (found.paths, found.num_further) == (shards, 1)
    assert found.of("us") == ["shards/b/us/2.tar"]


def test_many_are_named_by_the_folders_that_hold_nothing_else() -> None:
    whole = [f"shards/a/ct/{number:05d}.tar" for number in range(MOST_PATHS)]
    mixed = ["shards/b/ct/1.tar", "shards/b/us/2.tar"]
    found = shard_files(stored(*whole, *mixed, "shards/b/ct/withdrawn.tar"), [*whole, *mixed])
    assert found.paths == ["shards/a/ct/*.tar", "shards/b/ct/1.tar", "shards/b/us/*.tar"]
    assert found.num_further == 1
    assert found.of("ct") == ["shards/a/ct/*.tar", "shards/b/ct/1.tar"]
