"""The stream as PyTorch knows data: an `IterableDataset` of tensors with `state_dict` and `load_state_dict`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

from shards.errors import ConfigError
from shards.stream.columns import ColumnValues
from shards.stream.stream import Stream


class StreamDataset(IterableDataset[dict[str, Any]]):
    """Whole batches of a stream as tensors, without a copy.

    Use it directly or in `DataLoader(dataset, batch_size=None, num_workers=0)`: the stream has threads of its own, so
    worker processes would only get in the way, and are refused.

    Each batch is a dictionary: `views`, a list of `(B, num, C, size_px, size_px)` uint8 tensors, channels-last in
    memory; `keys`, `epoch` and `index`; with own columns also `columns`, name → `(B,)` tensor, and `missing`, name →
    `(B,)` bool tensor, see `column_tensors`; `categories` has the words of a category's numbers.

    A loop ends where the stream's `num_epochs` end, and the next loop goes on with the next epochs, so that
    `for epoch in range(10): for batch in loader:` over a stream with `num_epochs=1` sees every epoch once. `len` is the
    number of batches of such a loop.

    Args:
        stream: The stream; its position is the dataset's.
    """

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise ConfigError(
                "a stream runs in the training process, not in DataLoader workers", hint="set num_workers=0"
            )
        for batch in self.stream:
            yield {
                "views": [channels_first(view) for view in batch.views],
                "keys": batch.keys,
                "epoch": batch.epoch,
                "index": batch.index,
                **(column_tensors(batch.columns) if batch.columns else {}),
            }

    def __len__(self) -> int:
        if self.stream.num_epochs is None:
            raise TypeError("a stream without num_epochs goes on for ever; make it with num_epochs=1 for a length")
        return self.stream.num_epochs * self.stream.batches_per_epoch

    @property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """Of the own columns that are categories: name → words, at the place that a batch has as number."""
        return self.stream.categories

    def state_dict(self) -> dict[str, Any]:
        """The position of the next batch."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a position."""
        self.stream.load_state_dict(state)


def column_tensors(
    columns: Mapping[str, ColumnValues], device: torch.device | str | None = None
) -> dict[str, dict[str, torch.Tensor]]:
    """The own columns of a batch as tensors.

    Args:
        columns: `Batch.columns`.
        device: Where they go; the copies do not wait. None leaves them over the batch's memory.

    Returns:
        `columns`: name → `(B,)` bool, int64 or float64; a category is int32, -1 where nothing is known; dates are int64
        days and timestamps int64 microseconds since 1970. `missing`: name → `(B,)` bool, True where nothing is known.
    """

    def tensor(values: NDArray[Any]) -> torch.Tensor:
        made = torch.from_numpy(values)
        return made if device is None else made.to(device, non_blocking=True)

    return {
        "columns": {name: tensor(column.numbers()) for name, column in columns.items()},
        "missing": {name: tensor(column.missing) for name, column in columns.items()},
    }


def channels_first(view: NDArray[np.uint8]) -> torch.Tensor:
    """`(..., H, W, C)` pixels as a `(..., C, H, W)` tensor over the same memory."""
    return torch.from_numpy(view).movedim(-1, -3)
