"""A stream whose batches end on the device: what any trainer iterates over."""

from __future__ import annotations

import atexit
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from shards.errors import ConfigError
from train.feed.feeder import CLOSE_SECONDS, Draw, Feeder
from train.feed.ring import POLL_SECONDS, Ring, Slot
from train.feed.side import Event, Side, open_side, own_device

if TYPE_CHECKING:
    from shards.decode.device import DeviceDecoder
    from shards.decode.kernels.choice import KernelName

__all__ = ["DeviceBatch", "DeviceStream"]

_DEVICE = (torch.device, str, type(None))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBatch:
    """One rank's part of a global batch; its tensors are those of a slot, written again after the next batch is taken.

    Attributes:
        views: One tensor a group of crops on the device, `(B, num, size_px, size_px, C)` uint8.
        columns: Columns of the user's own by name, `(B,)` on the device: bool, int64 or float64, a category as int32,
            dates as int64 days and timestamps as int64 microseconds since 1970.
        missing: Name → `(B,)` bool on the device, True where the column has no value.
        drawn: What the stream's `draw` gave for this batch, on the device.
        keys: `B` sample keys.
        epoch: Epoch, from 0.
        index: Number of the global batch in its epoch, from 0.
        substituted: Slots of the batch that hold a substitute for a bad sample.
    """

    views: tuple[Tensor, ...]
    columns: Mapping[str, Tensor]
    missing: Mapping[str, Tensor]
    drawn: Mapping[str, Tensor]
    keys: tuple[str, ...]
    epoch: int
    index: int
    substituted: tuple[int, ...]


class DeviceStream:
    """Batches on a device, copied there by a thread and a CUDA stream of its own while earlier ones are computed on.

    The consumer's current CUDA stream waits for each batch; the host does not. A batch may be used until the next one
    is asked for: whatever was queued on the current CUDA stream by then still sees it. Clone what is to be kept longer.

    A stream with `decoder="device"` leaves its JPEGs to the device: they are decoded in the thread, in the same CUDA
    stream, which is drained before; raises `ConfigError` here where no library for it is installed.

    Leaving the loop stops the thread, and the next loop goes on behind the last batch taken. On the CPU the tensors lie
    over the arrays that the stream decodes into.

    Args:
        stream: A `shards.stream.Stream`, or anything that has batches with `views`, `keys`, `epoch` and `index`,
            `state_dict`, `load_state_dict` and `close`.
        device: Where batches end, with its index, or streams and events of one's own (`Side`); the GPU of this
            process's `LOCAL_RANK`, or the CPU, where None.
        slots: Batches on the device at a time, at least 2: one in use, the others filled or being filled.
        draw: Called in the thread with the number of the batch in this loop, from 0; its arrays come with the batch.
        kernels: What cuts the crops of images that are decoded on the device, the same on all ranks; what this process
            finds, where None.
    """

    def __init__(
        self,
        stream: Any,
        device: torch.device | str | Side | None = None,
        *,
        slots: int = 3,
        draw: Draw | None = None,
        kernels: KernelName | None = None,
    ) -> None:
        side = open_side(torch.device(device or own_device())) if isinstance(device, _DEVICE) else device
        if slots < 2:
            raise ConfigError(f"slots={slots}: one batch is filled while another is used", hint="use slots=2 or more")
        self.stream = stream
        self.device = side.device
        self._side = side
        self._slots = slots
        self._draw = draw
        self._decoder = _decoder_for(stream, side, kernels)
        self._position: Mapping[str, Any] | None = None
        self._feeder: Feeder | None = None

    def __iter__(self) -> Generator[DeviceBatch, None, None]:
        if self._feeder is not None and self._feeder.is_alive():
            raise ConfigError(
                "an earlier loop over this stream has not ended", hint="close it first, or open another stream"
            )
        if self._position is not None:
            self.stream.load_state_dict(dict(self._position))
        ring = Ring(self._slots)
        self._feeder = feeder = Feeder(self.stream, self._side, ring, self._draw, self._decoder)
        _open.add(feeder)
        feeder.start()
        try:
            while (slot := ring.take(feeder.is_alive)) is not None:
                self._position = slot.position
                yield self._batch(slot)
                ring.give_back(slot, self._side.consumed())
        finally:
            feeder.close()
            _open.discard(feeder)
            _wait(self._side.consumed())  # the slots' memory goes now

    def _batch(self, slot: Slot) -> DeviceBatch:
        assert slot.filled is not None
        self._side.wait_for(slot.filled)
        batch = slot.batch
        return DeviceBatch(
            views=slot.views,
            columns=slot.columns,
            missing=slot.missing,
            drawn=slot.drawn,
            keys=tuple(batch.keys),
            epoch=batch.epoch,
            index=batch.index,
            substituted=tuple(getattr(batch, "substituted", ())),
        )

    @property
    def num_decoded_on_host(self) -> int:
        """Images that were decoded on the host although the device was to: those that its library does not take."""
        return 0 if self._decoder is None else self._decoder.num_on_host

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch taken; what lies ready in the slots is not counted."""
        return dict(self.stream.state_dict() if self._position is None else self._position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a position; the next loop starts there."""
        self.stream.load_state_dict(state)
        self._position = None

    def close(self) -> None:
        """Stop the thread of a loop that was left open, and close the stream."""
        if self._feeder is not None:
            self._feeder.close()
        self.stream.close()


def _decoder_for(stream: Any, side: Side, kernels: KernelName | None) -> DeviceDecoder | None:
    if not getattr(stream, "defers", False):
        return None
    from shards.decode.device import DeviceDecoder

    return DeviceDecoder(mode="exact", device=side.device, kernels=kernels)


_open: set[Feeder] = set()


@atexit.register
def _close_open_feeders() -> None:
    """Stop the threads of loops that the program left open, while the interpreter is still whole."""
    for feeder in list(_open):
        feeder.close()


def _wait(event: Event) -> None:
    deadline = time.monotonic() + CLOSE_SECONDS
    while not event.query() and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
