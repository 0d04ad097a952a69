"""Retries of a store call: the pause doubles each time, half of it is random, and one time budget bounds them all."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from shards.store.driver import DriverError
from shards.store.notice import waiting
from shards.store.settings import StoreSettings

Result = TypeVar("Result")
_NEVER = threading.Event()
_LOOK_SECONDS = 0.5
_jitter = random.Random()  # noqa: S311 - spreads load, protects nothing


def attempt(
    action: Callable[[], Result],
    settings: StoreSettings,
    *,
    cancelled: threading.Event | None = None,
    on_failure: Callable[[DriverError], bool] | None = None,
    is_ending: Callable[[], bool] = lambda: False,
    what: str = "the storage",
) -> Result:
    """Call `action` until it succeeds, fails for good, or the budget is spent.

    Args:
        action: One attempt; raises `DriverError`.
        settings: Budget and pauses.
        cancelled: Set by whoever no longer wants the result; ends the attempts.
        on_failure: Told of every failure; True makes one that is not transient worth another attempt.
        is_ending: Whether the process is on its way out, which ends the attempts too.
        what: What is asked, for the word that a long wait gets.

    Raises:
        DriverError: The last failure.
    """
    end = time.monotonic() + settings.budget_seconds
    pause = settings.backoff_seconds
    with waiting(what, limit_seconds=settings.budget_seconds) as wait:
        while True:
            try:
                return action()
            except DriverError as error:
                again = on_failure(error) if on_failure else False
                if not again and error.kind != "transient":
                    raise
                wait.reason = error.text
                seconds = pause * (0.5 + 0.5 * _jitter.random())
                if time.monotonic() + seconds > end or is_ending():
                    raise
                if _ended_within(seconds, cancelled or _NEVER, is_ending):
                    raise
                pause = min(2 * pause, settings.backoff_max_seconds)


def _ended_within(seconds: float, cancelled: threading.Event, is_ending: Callable[[], bool]) -> bool:
    """Wait; whether the attempts are to end, which is looked at twice a second."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if cancelled.wait(min(left, _LOOK_SECONDS)) or is_ending():
            return True
    return cancelled.is_set()
