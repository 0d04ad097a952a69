"""`StreamDataset` under its earlier name; `shards.stream` is where it is public."""

from shards.stream.torch_dataset import StreamDataset

__all__ = ["StreamDataset"]
