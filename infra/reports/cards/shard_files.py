"""The shards of a dataset's version or of a lock, as a card names them.

The folders hold more than one version: what was withdrawn, changed or compacted lies there until a purge or a vacuum.
So a card names the shards one by one. Where they are too many for that, a pattern stands for each folder that holds
none but them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shards.store import Store

MOST_PATHS: Final = 1000
"""So many shards are named one by one: about 70 kB of text, and once more for their modalities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFiles:
    """How a card names shards.

    Attributes:
        paths: Paths of the shards, or patterns that match these alone.
        num_further: Tars of the dataset that are none of these shards.
    """

    paths: Sequence[str]
    num_further: int

    def of(self, folder: str) -> list[str]:
        """Those of a modality's folder."""
        return [path for path in self.paths if path.split("/")[2] == folder]


def shard_files(store: Store, shards: Sequence[str]) -> ShardFiles:
    """Name shards so that nothing else in their folders is named with them.

    Args:
        store: The dataset.
        shards: Their paths, sorted.

    Raises:
        StoreError: The storage cannot be listed.
    """
    mine = set(shards)
    further = [info.path for info in store.list("shards/") if info.path.endswith(".tar") and info.path not in mine]
    if len(shards) <= MOST_PATHS:
        return ShardFiles(paths=shards, num_further=len(further))
    mixed = {_folder(path) for path in further}
    paths = (path if _folder(path) in mixed else f"{_folder(path)}/*.tar" for path in shards)
    return ShardFiles(paths=list(dict.fromkeys(paths)), num_further=len(further))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
