"""The seam of the engines: run a function over tasks, on whatever machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from shards.errors import EngineError

if TYPE_CHECKING:
    from ingest.settings import LimitSettings

Function = Callable[[Any, Any, Callable[[int], None], Mapping[int, str]], Any]
"""`function(context, payload, beat, skip) -> result`; at module level, not of `__main__`: other processes import it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One piece of work: `index` names it, `payload` is what the function is given."""

    index: int
    payload: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent:
    """What happened: a step inside a task began, or (`done`) the task gave its result.

    An engine need not tell every step: the local one looks several times a second, Ray's not at all.

    Attributes:
        index: The task.
        step: The step that began; -1 when done.
        beats: Signs of life of the task so far: each step's begin, and whatever it told on its way.
        done: Whether the task is finished.
        result: What the function returned.
        lost: Why a task was given up that went down with its worker each time; an engine tells it where it is asked to
            go on without such a task, and ends the job otherwise.
    """

    index: int
    step: int = -1
    beats: int = 0
    done: bool = False
    result: Any = None
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How failures are met.

    Attributes:
        step_timeout_seconds: A step that gives no sign of life for so long is killed with its process.
        start_timeout_seconds: The same for the time from the hand-out of a task to its first step.
        step_attempts: Times a step may bring down a fresh process that nothing else runs beside before it is given up.
        task_attempts: Times a task may raise before the job fails.
        pause_seconds: How long a task waits before it is tried again after it raised, and twice as long each time.
        memory_bytes: What a process may take beyond what it starts with; 0: no limit.
    """

    step_timeout_seconds: float = 600.0
    start_timeout_seconds: float = 600.0
    step_attempts: int = 2
    task_attempts: int = 3
    pause_seconds: float = 0.5
    memory_bytes: int = 0

    @classmethod
    def of(cls, limits: LimitSettings) -> Supervision:
        """What the settings of a job say."""
        return cls(
            step_timeout_seconds=limits.item_timeout_seconds,
            step_attempts=limits.item_attempts,
            memory_bytes=limits.decoded_bytes,
        )


class Engine(Protocol):
    """Runs tasks; the order of events between tasks is free."""

    @property
    def num_workers(self) -> int:
        """How many tasks run at a time; 0 where nobody knows beforehand."""
        ...

    def run(self, function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        """Run `function(context, task.payload, beat, skip)` for every task.

        Raises:
            EngineError: A task raised in each of its attempts.
        """
        ...

    def release(self) -> None:
        """End what was started for the tasks; another run starts it again."""
        ...


@dataclass(slots=True)
class Ledger:
    """Counts failures of tasks and steps, and decides what to do about them.

    A step in which a process dies is under suspicion only: the machine may be to blame, its memory being full of what
    others do. Its task is tried again in a fresh process, when nothing else runs. A step that brings down such a
    process `step_attempts` times is given up; whatever else fails is the machine's fault, and ends the job after
    `task_attempts`.
    """

    rules: Supervision
    skip: dict[int, dict[int, str]] = field(default_factory=dict)
    _deaths: dict[tuple[int, int], int] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)

    def skips(self, index: int) -> Mapping[int, str]:
        """Steps of a task that are given up → why."""
        return self.skip.get(index, {})

    def pause(self, index: int) -> float:
        """Seconds that a task is to wait before its next try."""
        failures = self._failures.get(index, 0)
        return self.rules.pause_seconds * 2 ** (failures - 1) if failures else 0.0

    def death(self, index: int, step: int, why: str, *, alone: bool) -> None:
        """A process died (or was killed) in `step`.

        Args:
            index: The task.
            step: Its step; negative before the first.
            why: What happened.
            alone: Whether the process was a fresh one, and nothing ran beside it.

        Raises:
            EngineError: The process died before its first step too often.
        """
        if step < 0:
            self.failure(index, "the worker process died before its first step")
        elif alone:
            key = (index, step)
            self._deaths[key] = self._deaths.get(key, 0) + 1
            if self._deaths[key] >= self.rules.step_attempts:
                self.skip.setdefault(index, {})[step] = why

    def failure(self, index: int, error: str, *, hint: str = "") -> None:
        """A task raised.

        Raises:
            EngineError: It did so too often.
        """
        self._failures[index] = self._failures.get(index, 0) + 1
        if self._failures[index] >= self.rules.task_attempts:
            again = "run the same command again; finished units are kept"
            raise EngineError(
                f"unit {index} failed {self._failures[index]} times: {error}",
                hint=f"{hint or 'remove the cause'}, then {again}",
            )
