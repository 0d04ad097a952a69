"""The ring of slots under random timing: fake events decide when copies and uses of a slot are over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.faults import wait_for
from train.feed.device_stream import DeviceBatch, DeviceStream
from train.feed.ring import LentArrays

pytestmark = pytest.mark.torch

BATCH = 4


Copy = tuple[torch.Tensor, torch.Tensor]


class FakeEvent:
    """Happens when its time has come and somebody looks; then the copies before it read their sources."""

    def __init__(self, seconds: float, copies: Sequence[Copy] = ()) -> None:
        self._at = time.perf_counter() + seconds
        self.copies = list(copies)
        self._lock = threading.Lock()

    def query(self) -> bool:
        if time.perf_counter() < self._at:
            return False
        with self._lock:
            for source, target in self.copies:
                target.copy_(source)
            self.copies.clear()
        return True


@dataclass
class FakeSide:
    """A device whose copies and computations are over some time after they were queued.

    A copy reads its source as late as a real one may: a source that is written too early shows in what arrives.
    """

    delays: list[float]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    shares_memory: bool = False
    faults: list[str] = field(default_factory=list)
    _turn: int = 0
    _copies: list[Copy] = field(default_factory=list)
    _filled: dict[int, FakeEvent] = field(default_factory=dict)
    _used: dict[int, FakeEvent] = field(default_factory=dict)
    _in_use: list[int] = field(default_factory=list)

    def _delay(self) -> float:
        self._turn += 1
        return self.delays[self._turn % len(self.delays)]

    @contextmanager
    def inside(self) -> Iterator[None]:
        yield

    def host_array(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.zeros(shape, np.uint8)

    def empty(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.uint8)

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        place = target.data_ptr()
        if place in self._in_use or (place in self._used and not self._used[place].query()):
            self.faults.append("a slot was written while its consumer was pending")
        if place in self._filled and self._filled[place].copies:
            self.faults.append("a slot was written while its copy was pending")
        self._copies.append((source, target))

    def drain(self) -> None:
        pass

    def filled(self) -> FakeEvent:
        event, self._copies = FakeEvent(self._delay(), self._copies), []
        self._filled |= {target.data_ptr(): event for _, target in event.copies}
        return event

    def wait_for(self, filled: Any) -> None:
        self._in_use = [place for place, event in self._filled.items() if event is filled]
        while not filled.query():
            time.sleep(0.0001)

    def consumed(self) -> FakeEvent:
        event = FakeEvent(self._delay())
        self._used |= dict.fromkeys(self._in_use, event)
        self._in_use = []
        return event


@dataclass(frozen=True)
class Batch:
    views: tuple[NDArray[np.uint8], ...]
    keys: tuple[str, ...]
    epoch: int
    index: int


class Counting:
    """Batches whose pixels are their number, decoded into lent memory where there is some."""

    def __init__(self, num: int, delays: Sequence[float] = (0.0,)) -> None:
        self.num, self.delays, self.at, self.closed = num, delays, 0, False

    def lend(self, take: Any) -> Iterator[Batch]:
        while self.at < self.num:
            number = self.at
            time.sleep(self.delays[number % len(self.delays)])
            (view,) = take([(BATCH, 1, 2, 2, 3)])
            view[...] = number % 251
            self.at += 1
            yield Batch((view,), tuple(f"{number}-{k}" for k in range(BATCH)), 0, number)

    def state_dict(self) -> dict[str, Any]:
        return {"batch": self.at}

    def load_state_dict(self, state: Any) -> None:
        self.at = state["batch"]

    def close(self) -> None:
        self.closed = True


TIMES = st.lists(st.sampled_from([0.0, 0.0, 0.0005, 0.002]), min_size=1, max_size=7)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=TIMES, stream=TIMES, consumer=TIMES, slots=st.integers(2, 4))
def test_no_slot_is_written_while_its_copy_or_its_consumer_is_pending(
    events: list[float], stream: list[float], consumer: list[float], slots: int
) -> None:
    side = FakeSide(events)
    feed = DeviceStream(Counting(20, stream), side, slots=slots, draw=lambda number: {"n": np.full(3, number)})
    seen = []
    for number, batch in enumerate(feed):
        assert (batch.views[0] == number).all()
        assert batch.drawn["n"].tolist() == [number] * 3
        time.sleep(consumer[number % len(consumer)])
        assert (batch.views[0] == number).all()
        seen.append(batch.index)
    assert seen == list(range(20))
    assert side.faults == []


def test_a_fault_is_found_by_the_fake_device() -> None:
    side = FakeSide([1.0])
    source, target = torch.ones(3, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8)
    side.copy(source, target)
    side.filled()
    side.copy(source, target)
    assert side.faults == ["a slot was written while its copy was pending"]


def test_lent_arrays_are_free_when_their_event_has_happened_and_not_before() -> None:
    lent = LentArrays(lambda shape: np.zeros(shape, np.uint8))
    first = lent.take([(2, 3)])
    address = first[0].ctypes.data
    lent.give_back(first, FakeEvent(60))
    del first  # nobody on the host holds it, but a copy out of it is under way
    assert lent.take([(2, 3)])[0].ctypes.data != address
    second = lent.take([(2, 3)])
    lent.give_back(second, FakeEvent(0))
    assert lent.take([(3, 2)])[0] is not second[0]
    assert lent.take([(2, 3)])[0] is second[0]


def ended_within(seconds: float, began: float) -> bool:
    alive = any(thread.name == "biovfm-feed" for thread in threading.enumerate())
    return not alive and time.perf_counter() - began < seconds


def test_a_consumer_that_stops_ends_the_feeder() -> None:
    side = FakeSide([0.0])
    feed = DeviceStream(Counting(10**6), side)
    for batch in feed:
        if batch.index == 3:
            break
    began = time.perf_counter()
    feed.close()
    assert ended_within(5, began)
    assert feed.state_dict() == {"batch": 4}
    assert feed.stream.closed


def test_an_event_that_never_happens_keeps_nobody() -> None:
    feed = DeviceStream(Counting(10**6), FakeSide([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3600.0]), slots=2)
    loop = iter(feed)
    next(loop)
    began = time.perf_counter()
    loop.close()
    assert ended_within(5, began)


def test_an_exception_in_the_feeder_reaches_the_consumer_behind_the_batches_before_it() -> None:
    def draw(number: int) -> dict[str, NDArray[Any]]:
        if number == 3:
            raise ValueError("no numbers left")
        return {}

    seen: list[DeviceBatch] = []
    began = time.perf_counter()
    with pytest.raises(ValueError, match="no numbers left"):
        seen.extend(DeviceStream(Counting(9), FakeSide([0.0]), draw=draw))
    assert [batch.index for batch in seen] == [0, 1, 2]
    assert ended_within(5, began)


def test_an_exception_in_the_consumer_ends_the_feeder() -> None:
    began = time.perf_counter()
    feed = iter(DeviceStream(Counting(10**6), FakeSide([0.0])))
    next(feed)
    with pytest.raises(KeyboardInterrupt):
        feed.throw(KeyboardInterrupt())
    assert ended_within(5, began)


def test_a_stream_that_hangs_is_left_behind_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.feed.feeder.CLOSE_SECONDS", 0.2)
    hangs, released = threading.Event(), threading.Event()

    class Hanging(Counting):
        def lend(self, take: Any) -> Iterator[Batch]:
            yield from super().lend(take)
            hangs.set()
            released.wait(60)

    feed = DeviceStream(Hanging(2), FakeSide([0.0]))
    loop = iter(feed)
    next(loop)
    assert hangs.wait(60)
    began = time.perf_counter()
    loop.close()
    assert time.perf_counter() - began < 30
    with pytest.raises(Exception, match="has not ended"):
        next(iter(feed))
    released.set()
    wait_for(lambda: ended_within(60, began))
