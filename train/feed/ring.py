"""The ring of slots between feeder and consumer, and the arrays of the host behind it.

A slot goes round: free → filled (by the feeder) → taken (by the consumer) → given back with an event → free when that
event has happened. Whether somebody still holds a Python reference plays no part: a device reads memory long after the
host has forgotten it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from train.feed.side import Event

__all__ = ["LentArrays", "Ring", "Slot"]

_Arrays = tuple[NDArray[np.uint8], ...]

POLL_SECONDS = 0.0005
"""Between two looks at an event that has not happened."""
LISTEN_SECONDS = 0.1
"""Between two looks at whether the other side has stopped."""


@dataclass(slots=True, eq=False)
class Slot:
    """A place for one batch on the device.

    Attributes:
        number: Of the slot.
        memory: By name, memory of the device that the slot keeps from batch to batch, flat uint8.
        pinned: Memory of the host from which drawn numbers are copied, flat uint8.
        batch: The host's batch, kept until nothing reads it any more.
        views: One tensor a group of crops.
        columns: Columns of the user's own.
        missing: Where they have no value.
        drawn: Numbers that were drawn for it.
        position: Of the stream behind the batch.
        filled: The event behind the copies into the slot.
        consumed: The event behind the last use of it.
    """

    number: int
    memory: dict[str, Tensor] = field(default_factory=dict)
    pinned: NDArray[np.uint8] | None = None
    batch: Any = None
    views: tuple[Tensor, ...] = ()
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    missing: Mapping[str, Tensor] = field(default_factory=dict)
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    position: Mapping[str, Any] = field(default_factory=dict)
    filled: Event | None = None
    consumed: Event | None = None


@dataclass(frozen=True, slots=True)
class _End:
    """What comes after the last batch: an error, or nothing more."""

    error: BaseException | None


class Ring:
    """Hands slots from the feeder to the consumer and back.

    Args:
        num_slots: At least 2: one is filled while the other is computed on.
    """

    def __init__(self, num_slots: int) -> None:
        self._back: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[Slot | _End] = queue.SimpleQueue()
        self._stopped = threading.Event()
        for number in range(num_slots):
            self._back.put(Slot(number))

    def free(self) -> Slot | None:
        """The next slot that may be written; None where the consumer has stopped. Waits; for the feeder."""
        while not self._stopped.is_set():
            try:
                slot = self._back.get(timeout=LISTEN_SECONDS)
            except queue.Empty:
                continue
            while slot.consumed is not None and not slot.consumed.query():
                if self._stopped.wait(POLL_SECONDS):
                    return None
            return slot
        return None

    def put(self, slot: Slot) -> None:
        """A slot is filled, or will be when its event happens; for the feeder."""
        self._filled.put(slot)

    def end(self, error: BaseException | None) -> None:
        """There are no more batches; for the feeder."""
        self._filled.put(_End(error))

    def take(self, is_alive: Callable[[], bool]) -> Slot | None:
        """The next filled slot, None at the end; waits; for the consumer.

        Args:
            is_alive: Whether the feeder still runs.

        Raises:
            BaseException: What ended the feeder.
        """
        while True:
            try:
                item = self._filled.get(timeout=LISTEN_SECONDS)
            except queue.Empty:
                if is_alive() or not self._filled.empty():
                    continue
                raise RuntimeError("the thread that feeds the device has ended without a word") from None
            if isinstance(item, Slot):
                return item
            if item.error is not None:
                raise item.error
            return None

    def give_back(self, slot: Slot, consumed: Event) -> None:
        """A slot may be written when this event has happened; for the consumer."""
        slot.consumed = consumed
        self._back.put(slot)

    def stop(self) -> None:
        """The consumer wants no more."""
        self._stopped.set()


class LentArrays:
    """Arrays for the stream to decode into, free again when the event given back with them has happened.

    Args:
        allocate: Makes an array of a shape, uint8.
    """

    def __init__(self, allocate: Callable[[tuple[int, ...]], NDArray[np.uint8]]) -> None:
        self._allocate = allocate
        self._back: list[tuple[_Arrays, Event]] = []
        self._lock = threading.Lock()

    def take(self, shapes: Sequence[tuple[int, ...]]) -> _Arrays:
        """One array a shape, from those given back where their event has happened, else new ones."""
        with self._lock:
            for place, (arrays, event) in enumerate(self._back):
                if event.query() and [array.shape for array in arrays] == list(shapes):
                    del self._back[place]
                    return arrays
        return tuple(self._allocate(shape) for shape in shapes)

    def give_back(self, arrays: _Arrays, event: Event) -> None:
        """These may be written when the event has happened."""
        with self._lock:
            self._back.append((arrays, event))
