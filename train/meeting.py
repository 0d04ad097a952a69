"""Ranks meet afresh in every round of torchrun, and wait for a first rank that is busy.

torchrun keeps one key-value store over all its rounds. The keys of an earlier round are still there, so a rank that is
quick in the new round may read the address of a process that has ended, and the round fails. Here every rank draws a
token, the first rank lists the tokens that it sees, and the group starts under a prefix that all of them confirmed.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

import torch
import torch.distributed as dist

from shards.errors import TrainingError
from train.patience import collective_timeout

__all__ = ["MEETING", "KeyValues", "meet", "wait_for_first_rank", "while_others_wait"]

MEETING = timedelta(minutes=30)
_POLL_SECONDS = 0.1
_BEATS = 3  # in one time limit of a collective


class KeyValues(Protocol):
    """What is used of torch's `Store`."""

    def set(self, key: str, value: str, /) -> None:
        """Write a value."""

    def get(self, key: str, /) -> bytes:
        """The value of a key that is there."""

    def check(self, keys: list[str], /) -> bool:
        """Whether all keys are there."""


def meet(store: KeyValues, *, rank: int, size: int, seconds: float = MEETING.total_seconds()) -> str:
    """A name that the ranks of this round share, and no earlier round had.

    Args:
        store: Seen by all ranks; may hold what earlier rounds left.
        rank: Of this process.
        size: Ranks of this round.
        seconds: How long to wait for the others to arrive.

    Raises:
        TrainingError: Not all ranks arrived in time.
    """
    token = secrets.token_hex(8)
    store.set(f"meeting/here/{rank}", token)
    deadline = time.monotonic() + seconds
    name = ""
    while True:
        if rank == 0:
            name = _call(store, size, name, token)
        elif (now := _roster(store)) and now[1][rank : rank + 1] == [token]:
            name = now[0]
            store.set(f"meeting/{name}/{rank}", "yes")
        if name and store.check([f"meeting/{name}/{other}" for other in range(1, size)]):
            return name
        if time.monotonic() > deadline:
            raise TrainingError(
                f"rank {rank} waited {seconds:.0f} s for the other {size - 1} ranks to start",
                hint="look at the logs of the other hosts, then run the same command again",
            )
        time.sleep(_POLL_SECONDS)


def _call(store: KeyValues, size: int, name: str, token: str) -> str:
    """List the tokens under a new name where they are others than before; the name, empty while some are missing."""
    keys = [f"meeting/here/{rank}" for rank in range(size)]
    if not store.check(keys):
        return name
    tokens = [store.get(key).decode() for key in keys]
    if tokens[0] != token or _roster(store) == (name, tokens):  # a later round has begun, or nothing is new
        return name
    name = secrets.token_hex(8)
    store.set("meeting/roster", json.dumps([name, tokens]))
    return name


def _roster(store: KeyValues) -> tuple[str, list[str]] | None:
    """The newest name with its tokens by rank, maybe an earlier round's; None where there is none."""
    if not store.check(["meeting/roster"]):
        return None
    name, tokens = json.loads(store.get("meeting/roster"))
    return name, tokens


@contextmanager
def while_others_wait() -> Iterator[None]:
    """On the first rank: the others stay in `wait_for_first_rank` until the end, however long it takes.

    No collective may run inside.
    """
    done = threading.Event()

    def beat() -> None:
        while not done.wait(collective_timeout().total_seconds() / _BEATS):
            try:
                _tell(working=True)
            except RuntimeError:  # another rank is gone: the next collective says so
                return

    thread = threading.Thread(target=beat, name="first-rank", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        _tell(working=False)


def wait_for_first_rank() -> None:
    """On the other ranks: wait until the first has left `while_others_wait`."""
    while _tell(working=False):
        pass


def _tell(*, working: bool) -> bool:
    """Whether the first rank still works, on every rank."""
    flag = torch.tensor(int(working))
    dist.broadcast(flag, src=0)
    return bool(flag.item())
