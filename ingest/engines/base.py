"""The seam of the engines: run a function over tasks, on whatever machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from shards.errors import EngineError

if TYPE_CHECKING:
    from ingest.settings import LimitSettings

Function = Callable[[Any, Any, Callable[[int], None], Mapping[int, str]], Any]
"""`function(context, payload, beat, skip) -> result`; at module level, so that other processes can import it."""


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
        done: Whether the task is finished.
        result: What the function returned.
    """

    index: int
    step: int = -1
    done: bool = False
    result: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """How failures are met.

    Attributes:
        step_timeout_seconds: A step that takes longer is killed with its process.
        step_attempts: Times a step may kill its process before it is given up and skipped.
        task_attempts: Times a task may raise before the job fails.
    """

    step_timeout_seconds: float = 600.0
    step_attempts: int = 2
    task_attempts: int = 3

    @classmethod
    def of(cls, limits: LimitSettings) -> Supervision:
        """What the settings of a job say."""
        return cls(step_timeout_seconds=limits.item_timeout_seconds, step_attempts=limits.item_attempts)


class Engine(Protocol):
    """Runs tasks; the order of events between tasks is free."""

    def run(self, function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        """Run `function(context, task.payload, beat, skip)` for every task.

        Raises:
            EngineError: A task raised in each of its attempts.
        """
        ...


@dataclass(slots=True)
class Ledger:
    """Counts failures of tasks and steps, and decides what to do about them."""

    rules: Supervision
    skip: dict[int, dict[int, str]] = field(default_factory=dict)
    _deaths: dict[tuple[int, int], int] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)

    def skips(self, index: int) -> Mapping[int, str]:
        """Steps of a task that are given up → reason."""
        return self.skip.get(index, {})

    def death(self, index: int, step: int, reason: str) -> None:
        """A process died (or was killed) in `step`; a step that did so too often is skipped from now on."""
        if step < 0:
            self.failure(index, "the worker process died before its first step")
            return
        key = (index, step)
        self._deaths[key] = self._deaths.get(key, 0) + 1
        if self._deaths[key] >= self.rules.step_attempts:
            self.skip.setdefault(index, {})[step] = reason

    def failure(self, index: int, error: str) -> None:
        """A task raised.

        Raises:
            EngineError: It did so too often.
        """
        self._failures[index] = self._failures.get(index, 0) + 1
        if self._failures[index] >= self.rules.task_attempts:
            raise EngineError(
                f"unit {index} failed {self._failures[index]} times: {error}",
                hint="mend the cause and run the same command again; finished units are kept",
            )
