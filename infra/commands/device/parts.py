"""A check in parts: each has a verdict, and the next one runs whatever became of it."""

from __future__ import annotations

import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Literal

__all__ = ["Outcome", "Part", "Skipped", "Verdict", "run_parts"]

Verdict = Literal["ok", "bad", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a part.

    Attributes:
        name: Of the part.
        verdict: `ok`, `bad` (it ran, and a figure misses its goal), `failed` (it raised), `skipped`.
        detail: One line for people.
        figures: What was measured, JSON values; of a part that raised, its `traceback`.
        seconds: How long it took.
    """

    name: str
    verdict: Verdict
    detail: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part.

    Attributes:
        name: Shown.
        run: Gives a line and figures; raises `Skipped` where it cannot be asked for here.
        good: Whether the figures meet their goal; always, where there is none.
    """

    name: str
    run: Callable[[], tuple[str, Mapping[str, Any]]]
    good: Callable[[Mapping[str, Any]], bool] = lambda _: True


class Skipped(Exception):  # noqa: N818 - it is an outcome, not an error
    """This machine has nothing to run the part on, or the time is up."""


class _TimeIsUpError(Exception):
    """Raised in a part that is under way when the time is up."""


def run_parts(parts: Sequence[Part], *, seconds: float) -> Iterator[Outcome]:
    """Run the parts in order, going on after one that fails.

    Args:
        parts: What to run.
        seconds: For all of them. No part is begun later, and one that is under way then is broken off, where this is
            the main thread of a system with alarms.
    """
    end = time.monotonic() + seconds
    for part in parts:
        if time.monotonic() >= end:
            yield Outcome(name=part.name, verdict="skipped", detail=f"the {seconds:.0f} seconds were over")
            continue
        with _alarm_at(end, f"broken off: the {seconds:.0f} seconds were over"):
            outcome = _run(part)
        yield outcome


@contextmanager
def _alarm_at(end: float, message: str) -> Iterator[None]:
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _TimeIsUpError(message)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(end - time.monotonic(), 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _run(part: Part) -> Outcome:
    began = time.perf_counter()
    verdict: Verdict
    figures: Mapping[str, Any] = {}
    try:
        detail, figures = part.run()
        verdict = "ok" if part.good(figures) else "bad"
    except Skipped as reason:
        verdict, detail = "skipped", str(reason)
    except _TimeIsUpError as reason:
        verdict, detail = "failed", str(reason)
    except Exception as error:  # noqa: BLE001 - whatever a driver or library raises is the finding
        lines = str(error).splitlines()
        verdict, detail = "failed", f"{type(error).__name__}: {lines[0] if lines else 'without a word'}"
        figures = {"traceback": traceback.format_exc()}
    return Outcome(
        name=part.name, verdict=verdict, detail=detail, figures=figures, seconds=round(time.perf_counter() - began, 2)
    )
