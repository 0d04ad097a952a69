"""What happens to a command while it runs. Each fault sets right again what it did before it returns."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from infra.bench.soak.places import Place
from shards.dataset.dataset import Dataset
from tests.faults import Fault

__all__ = ["NO_FAULT", "PREPARED", "FaultAction", "Scene", "faults_for", "grow"]

_BLOCK = 1 << 16


@dataclass(slots=True, kw_only=True)
class Scene:
    """A command under way, and what a fault may use.

    Attributes:
        process: The command, once it has started; the leader of its process group.
        place: Where its dataset lies.
        rng: Of this attempt.
        seconds: How long the command takes undisturbed, about.
        ready: Set by a fault of `PREPARED` when the command may start.
        over: Set when the command has ended.
        detail: What the fault says about itself.
        rotten: Whether a byte of a committed shard is another one.
        failures: What the fault's own commands could not do.
    """

    place: Place
    rng: random.Random
    seconds: float
    process: subprocess.Popen[bytes] = field(init=False)
    ready: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    detail: str = ""
    rotten: bool = False
    failures: list[str] = field(default_factory=list)

    def wait_a_while(self) -> bool:
        """Until a random moment of the command; whether it still runs then."""
        moment = self.rng.uniform(0.1, 1.1) * self.seconds
        self.detail = f"after {moment:.1f} s"
        return not self.over.wait(moment)


FaultAction = Callable[[Scene], None]


def no_fault(_scene: Scene) -> None:
    """Nothing."""


PREPARED = frozenset({"bit rot"})
"""Faults that happen before the command starts."""
NO_FAULT: tuple[str, FaultAction] = ("none", no_fault)


def kill(scene: Scene) -> None:
    """SIGKILL for the command and its workers."""
    if scene.wait_a_while():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(scene.process.pid, signal.SIGKILL)


def kill_main(scene: Scene) -> None:
    """SIGKILL for the command alone: its workers find out by themselves."""
    if scene.wait_a_while():
        scene.process.kill()


def kill_worker(scene: Scene) -> None:
    """SIGKILL for one of the command's children, where it has any."""
    if not scene.wait_a_while():
        return
    children = Path(f"/proc/{scene.process.pid}/task/{scene.process.pid}/children")
    with contextlib.suppress(OSError):
        found = [int(word) for word in children.read_text(encoding="ascii").split()]
        if found:
            os.kill(scene.rng.choice(found), signal.SIGKILL)


def terminate(scene: Scene) -> None:
    """SIGTERM."""
    if scene.wait_a_while():
        scene.process.terminate()


def full_disk(scene: Scene) -> None:
    """A disk with little or no room left for as long as the command runs."""
    disk = scene.place.disk
    assert disk is not None
    left = scene.rng.choice((0, 8 << 10, 100 << 10, 400 << 10))
    scene.detail = f"{left >> 10} kB left"
    if scene.rng.random() < 0.5:
        scene.over.wait(scene.rng.uniform(0.2, 1.0) * scene.seconds)
    ballast = disk / "ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb") as stream:
            while not scene.over.is_set() and (free := shutil.disk_usage(disk).free - left) > 0:
                stream.write(bytes(min(free, 1 << 20)))
                stream.flush()
        scene.over.wait()
    finally:
        ballast.unlink(missing_ok=True)


def bit_rot(scene: Scene) -> None:
    """One byte of a shard is another one for as long as the command runs."""
    rows = Dataset.open(scene.place.dataset).query("SELECT DISTINCT shard FROM samples ORDER BY 1").to_pylist()
    path = Path(scene.place.dataset) / scene.rng.choice(rows)["shard"]
    # What follows the first header is an image.
    place = 512 + scene.rng.randrange(512)
    before = path.read_bytes()
    scene.detail, scene.rotten = f"byte {place} of {path.name[:8]}", True
    _write_byte(path, place, before[place] ^ 0x55)
    scene.ready.set()
    try:
        scene.over.wait()
    finally:
        _write_byte(path, place, before[place])


def _write_byte(path: Path, place: int, value: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(bytes([value]))


def outage(scene: Scene) -> None:
    """The server is killed, and comes back after a while."""
    server = scene.place.server
    assert server is not None
    if not scene.wait_a_while():
        return
    seconds = scene.rng.uniform(0.2, 8.0)
    scene.detail += f" for {seconds:.1f} s"
    server.kill()
    scene.over.wait(seconds)
    server.launch()


def wrong_clock(scene: Scene) -> None:
    """The server's clock is off by minutes, and jumps once."""
    proxy = scene.place.proxy
    assert proxy is not None
    first, second = (60.0 * scene.rng.uniform(-14, 14) for _ in range(2))
    scene.detail = f"{first:.0f} s, then {second:.0f} s"
    proxy.clock_seconds = first
    scene.over.wait(scene.rng.uniform(0, scene.seconds))
    proxy.clock_seconds = second
    scene.over.wait()
    proxy.clock_seconds = 0.0


_MOST_REPLIES: Final = 600
_MOST_SECONDS: Final = 60.0
"""A storage that breaks more than these, or for longer, is down: that is an outage."""


def replies(make: Callable[[random.Random], Fault], *, methods: Sequence[str], times: int) -> FaultAction:
    """A fault of the network: again and again some replies are broken, until that has been enough."""

    def act(scene: Scene) -> None:
        proxy = scene.place.proxy
        assert proxy is not None
        broken, end = 0, time.monotonic() + _MOST_SECONDS
        while broken < _MOST_REPLIES and time.monotonic() < end and not scene.over.wait(scene.rng.uniform(0.05, 0.5)):
            proxy.clear()  # what has not happened does not pile up: a stall takes as long as a time limit
            number = scene.rng.randint(1, times)
            proxy.add(make(scene.rng), method=scene.rng.choice(methods), times=number)
            broken += number
        if not scene.over.is_set():
            proxy.clear()
        scene.over.wait()
        proxy.clear()
        scene.detail = f"up to {broken} replies"

    return act


_ALL = ("GET", "PUT", "HEAD", "POST", "DELETE")
_EVERYWHERE: Mapping[str, FaultAction] = {
    "kill -9": kill,
    "kill -9, main process": kill_main,
    "kill -9, a worker": kill_worker,
    "SIGTERM": terminate,
}
_ON_STORE: Mapping[str, FaultAction] = {
    "outage": outage,
    "clock off": wrong_clock,
    "reset": replies(lambda rng: Fault.cut(rng.randrange(_BLOCK), reset=True), methods=("GET",), times=3),
    "cut": replies(lambda rng: Fault.cut(rng.randrange(2000)), methods=_ALL, times=3),
    "503": replies(lambda _: Fault.answer(503, "SlowDown"), methods=_ALL, times=4),
    "500": replies(lambda _: Fault.answer(500, "InternalError"), methods=_ALL, times=2),
    "403": replies(lambda _: Fault.answer(403, "AccessDenied"), methods=_ALL, times=2),
    "flip": replies(lambda rng: Fault.flip(rng.randrange(4000)), methods=("GET",), times=2),
    "truncated": replies(lambda rng: Fault.truncate(rng.randrange(4000)), methods=("GET",), times=2),
    "reply lost": replies(lambda _: Fault.drop_reply(), methods=("PUT", "POST", "DELETE"), times=2),
    "stall": replies(lambda rng: Fault.stall(rng.randrange(4000)), methods=("GET", "PUT"), times=1),
}


def faults_for(place: Place, *, reads_only: bool) -> Mapping[str, FaultAction]:
    """What may happen to a command at a place.

    Args:
        place: Where its dataset lies.
        reads_only: Whether the command only reads the dataset.
    """
    found = dict(_EVERYWHERE)
    if place.proxy is not None:
        found |= _ON_STORE
    if place.disk is not None:
        found["full disk"] = full_disk
    if place.server is None and reads_only:
        found["bit rot"] = bit_rot
    return found


def grow(place: Place, source: str, count: int, *, seed: int) -> None:
    """Add raw files to a source."""
    from infra.bench.soak.material import files_of

    first = place.files.get(source, 0)
    place.add_raw(source, files_of(source, range(first, first + count), seed=seed))
    place.files[source] = first + count
