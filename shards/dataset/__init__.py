"""The dataset on storage: shard files, tables, verification."""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from shards.dataset.dataset import Dataset
else:
    __getattr__, __dir__ = lazily(__name__, {"Dataset": "shards.dataset.dataset"})

__all__ = ["Dataset"]
