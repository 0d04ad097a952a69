"""The seam to a device: a queue of copies beside the queue that computes, events between them, memory to copy from.

`CudaSide` is a CUDA stream with pinned memory. `HostSide` is the CPU, where the arrays of the stream are the slots and
every event has happened when it is recorded: the same path with nothing to wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.settings import whole_number

__all__ = ["CudaSide", "Event", "HostSide", "Side", "open_side", "own_device"]


class Event(Protocol):
    """A point in a device's queue of work."""

    def query(self) -> bool:
        """Whether all work before that point is done; does not wait."""
        ...


class Side(Protocol):
    """What the feeder needs of a device.

    Attributes:
        device: Where batches end.
        shares_memory: Whether arrays of the host are tensors of the device, so that nothing is copied.
    """

    device: torch.device
    shares_memory: bool

    @contextmanager
    def inside(self) -> Iterator[None]:
        """In the feeder's thread: use the device, and its queue of copies."""
        ...

    def host_array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Memory of the host that can be copied from without waiting, uint8."""
        ...

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Memory of the device, uint8; called inside."""
        ...

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Queue a copy from the host to the device; called inside."""
        ...

    def drain(self) -> None:
        """Wait until the queue of copies is empty; called inside."""
        ...

    def filled(self) -> Event:
        """The point behind everything in the queue of copies; called inside."""
        ...

    def wait_for(self, filled: Event) -> None:
        """Let the queue that computes wait for that point; called by the consumer, which itself does not wait."""
        ...

    def consumed(self) -> Event:
        """The point behind everything in the queue that computes; called by the consumer."""
        ...


class _Happened:
    def query(self) -> bool:
        return True


_HAPPENED = _Happened()


class HostSide:
    """The CPU; see `Side`."""

    shares_memory = True

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Nothing to enter."""
        yield

    def host_array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Plain memory."""
        return np.zeros(shape, np.uint8)

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Plain memory."""
        return torch.empty(shape, dtype=torch.uint8)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """At once."""
        target.copy_(source)

    def drain(self) -> None:
        """Nothing is queued."""

    def filled(self) -> Event:
        """Has happened."""
        return _HAPPENED

    def wait_for(self, filled: Event) -> None:
        """Nothing to wait for."""

    def consumed(self) -> Event:
        """Has happened: the consumer computes before it asks for the next batch."""
        return _HAPPENED


class CudaSide:
    """A CUDA device with a stream of its own for copies; see `Side`.

    Args:
        device: With its index: a thread's current device is 0, whatever the process has chosen.
    """

    shares_memory = False

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stub

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The device and the stream of copies, for this thread."""
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield

    def host_array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Pinned memory."""
        pinned: NDArray[np.uint8] = torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
        return pinned

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        """Out of the pool of the stream of copies."""
        return torch.empty(shape, dtype=torch.uint8, device=self.device)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Queued where the source is pinned; from other memory this thread waits until it has been read."""
        target.copy_(source, non_blocking=True)

    def drain(self) -> None:
        """Waits for the stream of copies alone."""
        self._stream.synchronize()

    def filled(self) -> Event:
        """Recorded on the stream of copies."""
        return self._recorded_on(self._stream)

    def wait_for(self, filled: Event) -> None:
        """By the device: the host goes on."""
        torch.cuda.current_stream(self.device).wait_event(filled)  # type: ignore[arg-type]  # it is one of ours

    def consumed(self) -> Event:
        """Recorded on the stream that is current for the consumer."""
        return self._recorded_on(torch.cuda.current_stream(self.device))

    def _recorded_on(self, stream: torch.cuda.Stream) -> torch.cuda.Event:
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's stub
        event.record(stream)
        return event


def own_device() -> torch.device:
    """Where this process computes: the GPU of its `LOCAL_RANK`, or the CPU.

    Raises:
        ConfigError: The variable holds no number.
    """
    if torch.cuda.is_available():
        return torch.device("cuda", whole_number("LOCAL_RANK", 0))
    return torch.device("cpu")


def open_side(device: torch.device) -> Side:
    """The seam of a device."""
    if device.type != "cuda":
        return HostSide()
    index = torch.cuda.current_device() if device.index is None else device.index
    return CudaSide(torch.device("cuda", index))
