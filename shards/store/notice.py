"""A word on standard error about waits that are long: what is waited for, why, and how long it will go on.

One thread of a process looks after all waits; it is started by the first one and costs a wait two dictionary entries.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

QUIET_SECONDS = 5.0
"""A wait is not worth a word before."""
AGAIN_SECONDS = 30.0
"""From one word on a wait to the next."""


@dataclass(slots=True, kw_only=True)
class Wait:
    """One wait under way.

    Attributes:
        what: What is waited for; nothing secret.
        limit_seconds: How long it may take from its begin; 0 where nothing ends it.
        reason: What went wrong last; empty where nothing has answered yet.
        begun: By the monotonic clock, in seconds.
        next_word: When the next word is due, by the same clock.
    """

    what: str
    limit_seconds: float
    reason: str = ""
    begun: float = field(default_factory=time.monotonic)
    next_word: float = 0.0

    def word(self, now: float) -> str:
        """The line for a person."""
        because = f" ({self.reason})" if self.reason else ""
        end = f"; gives up after {self.limit_seconds:.0f} s" if self.limit_seconds else ""
        return f"biovfm: waiting for {self.what} for {now - self.begun:.0f} s{because}{end}\n"


class _Watcher:
    """The waits of this process."""

    def __init__(self) -> None:
        self._waits: dict[int, Wait] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._pid = 0

    def begin(self, wait: Wait) -> int:
        wait.next_word = wait.begun + QUIET_SECONDS
        number = next(self._numbers)
        with self._lock:
            if self._pid != os.getpid():  # a fork has no thread
                self._waits, self._pid = {}, os.getpid()
                threading.Thread(target=self._look, name="biovfm-waits", daemon=True).start()
            self._waits[number] = wait
        return number

    def end(self, number: int) -> None:
        with self._lock:
            self._waits.pop(number, None)

    def _look(self) -> None:
        while True:
            time.sleep(1.0)
            now = time.monotonic()
            with self._lock:
                due = [wait for wait in self._waits.values() if wait.next_word <= now]
                for wait in due:
                    wait.next_word = now + AGAIN_SECONDS
            if due:  # one word for all that wait at the same time
                sys.stderr.write(min(due, key=lambda wait: wait.begun).word(now))
                sys.stderr.flush()


_watcher = _Watcher()


@contextmanager
def waiting(what: str, *, limit_seconds: float) -> Iterator[Wait]:
    """Say so on standard error where what is done here takes longer than `QUIET_SECONDS`.

    Args:
        what: What is waited for; nothing secret.
        limit_seconds: How long it may take; 0 where nothing ends it.
    """
    wait = Wait(what=what, limit_seconds=limit_seconds)
    number = _watcher.begin(wait)
    try:
        yield wait
    finally:
        _watcher.end(number)
