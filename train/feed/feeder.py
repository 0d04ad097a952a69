"""The thread that takes batches from a stream and brings them to the device, some steps ahead of the consumer."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.decode.base import Status
from shards.errors import ShardError
from shards.stream.columns import ColumnValues
from train.feed.blocks import block_bytes, pack, unpack
from train.feed.ring import LentArrays, Ring, Slot
from train.feed.side import Side

if TYPE_CHECKING:
    from shards.decode.device import DeviceDecoder

__all__ = ["CLOSE_SECONDS", "Draw", "Feeder"]

Draw = Callable[[int], Mapping[str, NDArray[Any]]]
"""Arrays of numbers for the n-th batch of a loop, from 0; called ahead of time in the feeder's thread."""

CLOSE_SECONDS = 4.0
"""A feeder that is stopped ends at once, unless its stream keeps it waiting; it is left behind after so long."""


class Feeder:
    """Fills the slots of a ring until the stream or the consumer ends.

    Args:
        stream: Has batches when iterated over; where it has `lend` too, it decodes into memory of the feeder.
        side: The device.
        ring: The slots.
        draw: What is to be copied beside each batch.
        decoder: Decodes what the stream leaves to the device.
    """

    def __init__(
        self, stream: Any, side: Side, ring: Ring, draw: Draw | None, decoder: DeviceDecoder | None = None
    ) -> None:
        self._stream = stream
        self._side = side
        self._ring = ring
        self._draw = draw
        self._decoder = decoder
        self._lent = LentArrays(side.host_array) if hasattr(stream, "lend") else None
        self._thread = threading.Thread(target=self._run, name="biovfm-feed", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Stop the thread and wait for it, `CLOSE_SECONDS` at most."""
        self._ring.stop()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            with self._side.inside(), closing(self._batches()) as batches:
                for number, (batch, position) in enumerate(batches):
                    slot = self._ring.free()
                    if slot is None:
                        break
                    self._fill(slot, number, batch)
                    slot.position = position
                    self._ring.put(slot)
        except BaseException as caught:  # noqa: BLE001 - it crosses a thread: the consumer must see whatever it is
            error = caught
        self._ring.end(error)

    def _batches(self) -> Generator[tuple[Any, Mapping[str, Any]], None, None]:
        """Batches of the host, each with the position behind it."""
        for batch in self._stream if self._lent is None else self._stream.lend(self._lent.take):
            yield batch, self._stream.state_dict()

    def _fill(self, slot: Slot, number: int, batch: Any) -> None:
        self._give_back_arrays(slot)
        slot.batch = batch
        slot.views = tuple(self._bring(slot, f"view {place}", view) for place, view in enumerate(batch.views))
        if self._decoder is not None:
            self._decode(batch, slot.views)
        columns: Mapping[str, ColumnValues] = getattr(batch, "columns", {})
        slot.columns = {name: self._bring(slot, f"column {name}", of.numbers()) for name, of in columns.items()}
        slot.missing = {name: self._bring(slot, f"missing {name}", of.missing) for name, of in columns.items()}
        slot.drawn = self._bring_block(slot, self._draw(number)) if self._draw is not None else {}
        slot.filled = self._side.filled()
        if not self._side.shares_memory:
            self._give_back_arrays(slot)

    def _decode(self, batch: Any, views: tuple[Tensor, ...]) -> None:
        """Decode the images that were left to the device into their places, behind the copy of the others."""
        assert self._decoder is not None
        left = np.array([len(blob) > 0 for blob in batch.blobs])
        self._decoder.num_on_host += int((~left).sum())
        self._side.drain()  # the engine of some GPUs writes at once, whatever is queued
        status = self._decoder.decode(batch.blobs, batch.seeds, self._stream.crops, views)
        for row in np.flatnonzero(left & (status != Status.OK)).tolist():
            raise ShardError(
                f"{batch.keys[row]}: no decoder can read it, though its markers are those of a whole JPEG",
                hint="run `biovfm verify --deep` on the dataset, or decode on the host (run.decode=host)",
            )

    def _give_back_arrays(self, slot: Slot) -> None:
        """Let the stream decode into a batch's arrays again, once nothing reads them any more."""
        if slot.batch is None:
            return
        last_read = slot.consumed if self._side.shares_memory else slot.filled
        if self._lent is not None and last_read is not None:
            self._lent.give_back(tuple(slot.batch.views), last_read)
            slot.batch = dataclasses.replace(slot.batch, views=())

    def _bring(self, slot: Slot, name: str, array: NDArray[Any]) -> Tensor:
        """An array of the host as a tensor of the device, in memory of the slot."""
        source = torch.from_numpy(array)
        if self._side.shares_memory:
            return source
        target = slot_memory(slot, name, array.nbytes, self._side)
        here = target[: array.nbytes].view(source.dtype).view(source.shape)
        self._side.copy(source, here)
        return here

    def _bring_block(self, slot: Slot, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Tensor]:
        """Many small arrays by one copy."""
        if self._side.shares_memory:
            return {name: torch.from_numpy(array) for name, array in arrays.items()}
        num_bytes = block_bytes(arrays)
        if slot.pinned is None or len(slot.pinned) < num_bytes:
            slot.pinned = self._side.host_array((num_bytes + num_bytes // 4,))
        pack(arrays, slot.pinned)
        target = slot_memory(slot, "drawn", len(slot.pinned), self._side)
        self._side.copy(torch.from_numpy(slot.pinned[:num_bytes]), target[:num_bytes])
        return unpack(arrays, target)


def slot_memory(slot: Slot, name: str, num_bytes: int, side: Side) -> Tensor:
    """Memory of a free slot, `(n,)` uint8 with `n >= num_bytes`; new memory where it has less."""
    memory = slot.memory.get(name)
    if memory is None or memory.numel() < num_bytes:
        memory = slot.memory[name] = side.empty((num_bytes,))
    return memory
