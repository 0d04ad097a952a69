"""Plan, order and stream: from a lock to batches."""

from typing import TYPE_CHECKING

from shards import lazily

if TYPE_CHECKING:
    from shards.stream.batch import Batch
    from shards.stream.mixing import Mixture
    from shards.stream.stream import Stream
    from shards.stream.torch_dataset import StreamDataset
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "Batch": "shards.stream.batch",
            "Mixture": "shards.stream.mixing",
            "Stream": "shards.stream.stream",
            "StreamDataset": "shards.stream.torch_dataset",
        },
    )

__all__ = ["Batch", "Mixture", "Stream", "StreamDataset"]
