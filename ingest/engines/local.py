"""Supervised local processes: a decoder that crashes or hangs costs its own file, never the job.

Each worker is a spawned process with one pipe and two shared numbers: the step (raw file) that it began last, and how
many signs of life it gave. They are writes to memory, so that a step costs nothing and a worker that dies leaves them
behind. When a worker dies, runs out of memory or gives no sign of life for too long, its task is tried again in a fresh
process when all others are idle, and a step that brings that one down too, `step_attempts` times, is skipped. Workers
stay for the next run of their engine, since starting one takes as long as dozens of images, and end when their
supervisor does, however that ends.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from types import TracebackType
from typing import Any, Self

from ingest.engines.base import Function, Ledger, Supervision, Task, TaskEvent
from ingest.engines.lean import one_blas_thread, without_main, without_pandas
from ingest.engines.memory import arrow_from_c, keep_freed, limit_growth
from shards.decode.opencv import find_opencv
from shards.errors import BiovfmError, ConfigError, LibraryError, MachineError

_POLL_SECONDS = 0.25


@dataclass(slots=True)
class _Worker:
    """A process, and what was last seen of it: it gave `beats` signs of life, the last no later than `since`."""

    process: BaseProcess
    pipe: Connection
    begun: ctypes.c_longlong
    ticks: ctypes.c_longlong
    work: tuple[Function, Any] | None = None
    task: Task | None = None
    alone: bool = False
    beats: int = 0
    since: float = field(default_factory=time.monotonic)


class LocalEngine:
    """Runs tasks on this machine; as a context manager, or by `release`, it ends its processes.

    Args:
        workers: Processes; 0 runs everything in this process, unsupervised (for tests and debuggers).
        rules: How failures are met.

    Raises:
        ConfigError: The number of workers is negative.
    """

    def __init__(self, workers: int = 1, rules: Supervision | None = None) -> None:
        if workers < 0:
            raise ConfigError(f"{workers} workers", hint="give --workers 1 or more, or 0 for this process alone")
        self._num = workers
        self._rules = rules or Supervision()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    @property
    def num_workers(self) -> int:
        """How many tasks run at a time."""
        return self._num

    def start(self, module: str) -> None:
        """Start the processes and let them import a module, while the caller does what comes before the first run."""
        while len(self._workers) < self._num:
            self._workers.append(_start(module, self._rules.memory_bytes))

    def run(self, function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        """Run the tasks; see `Engine`."""
        if self._num == 0:
            return _run_here(function, context, tasks)
        return self._run_supervised(_Run(work=(function, context), todo=deque(tasks), ledger=Ledger(self._rules)))

    def release(self) -> None:
        """End the processes; another run starts new ones."""
        while self._workers:
            _stop(self._workers.pop())

    def _run_supervised(self, run: _Run) -> Iterator[TaskEvent]:
        try:
            while run.todo or run.suspects or any(worker.task for worker in self._workers):
                self._hand_out(run)
                ready = set(wait([worker.pipe for worker in self._workers], timeout=_POLL_SECONDS))
                for worker in list(self._workers):
                    event = _receive(worker, run) if worker.pipe in ready else _look(worker)
                    if event is None and self._is_stuck(worker):
                        run.lose(worker, f"no progress for {self._rules.step_timeout_seconds:g} s")
                    if event:
                        yield event
                    if worker.process.exitcode is not None:
                        self._workers.remove(worker)
        finally:
            for worker in [worker for worker in self._workers if worker.task]:
                _stop(worker)
                self._workers.remove(worker)

    def _is_stuck(self, worker: _Worker) -> bool:
        """Whether a worker has given no sign of life for too long; it may need time to start before its first one."""
        patience = self._rules.step_timeout_seconds if worker.beats else self._rules.start_timeout_seconds
        return worker.task is not None and time.monotonic() - worker.since > patience

    def _hand_out(self, run: _Run) -> None:
        if any(worker.alone and worker.task for worker in self._workers):
            return
        if run.todo:
            idle = [worker for worker in self._workers if worker.task is None]
            for _ in range(min(len(run.todo) - len(idle), self._num - len(self._workers))):
                idle.append(_start(run.work[0].__module__, self._rules.memory_bytes))
                self._workers.append(idle[-1])
            for worker in idle[: len(run.todo)]:
                _give(worker, run, run.todo.popleft())
        elif run.suspects and not any(worker.task for worker in self._workers):
            while len(self._workers) >= self._num:
                _stop(self._workers.pop())
            fresh = _start(run.work[0].__module__, self._rules.memory_bytes)
            self._workers.append(fresh)
            _give(fresh, run, run.suspects.popleft(), alone=True)


@dataclass(slots=True, kw_only=True)
class _Run:
    """Tasks under way: `suspects` are those in which a process died; they are tried again alone."""

    work: tuple[Function, Any]
    todo: deque[Task]
    ledger: Ledger
    suspects: deque[Task] = field(default_factory=deque)

    def lose(self, worker: _Worker, why: str) -> None:
        """A worker has died, or is of no more use."""
        step = worker.begun.value
        _stop(worker)
        if worker.task is not None:
            self.suspects.append(worker.task)
            self.ledger.death(worker.task.index, step, why, alone=worker.alone)


def _run_here(function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
    for task in tasks:
        try:
            result = function(context, task.payload, _ignore, {})
        except OSError as error:
            raise MachineError(
                f"unit {task.index}: {error}", hint="remove the cause and run the command again"
            ) from error
        yield TaskEvent(index=task.index, done=True, result=result)


def _ignore(_step: int) -> None:
    pass


def _start(module: str, memory_bytes: int) -> _Worker:
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    begun, ticks = RawValue(ctypes.c_longlong, -1), RawValue(ctypes.c_longlong, 0)
    process = spawn.Process(target=_work, args=(theirs, (begun, ticks), module, memory_bytes, os.getpid()), daemon=True)
    resource_tracker.ensure_running()  # its start would undo the next line
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the process ignores Ctrl-C by itself
    try:
        with without_main(), one_blas_thread():
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    theirs.close()
    return _Worker(process=process, pipe=ours, begun=begun, ticks=ticks)


def _give(worker: _Worker, run: _Run, task: Task, *, alone: bool = False) -> None:
    worker.task, worker.alone, worker.beats, worker.since = task, alone, 0, time.monotonic()
    worker.begun.value, worker.ticks.value = -1, 0
    with suppress(BrokenPipeError, ConnectionError):  # a dead worker is noticed on its pipe
        if worker.work is None or any(had is not new for had, new in zip(worker.work, run.work, strict=True)):
            worker.pipe.send(("work", run.work))
            worker.work = run.work
        ledger = run.ledger
        worker.pipe.send(("task", (task.payload, dict(ledger.skips(task.index)), ledger.pause(task.index))))


def _look(worker: _Worker) -> TaskEvent | None:
    """How a worker got on since it was last looked at."""
    beats = worker.ticks.value
    if worker.task is None or beats == worker.beats:
        return None
    worker.beats, worker.since = beats, time.monotonic()
    return TaskEvent(index=worker.task.index, step=worker.begun.value, beats=beats)


def _receive(worker: _Worker, run: _Run) -> TaskEvent | None:
    """One message of a worker."""
    try:
        kind, value = worker.pipe.recv()
    except (EOFError, ConnectionError):
        run.lose(worker, "crashed")
        return None
    task = worker.task
    assert task is not None
    if kind == "memory":
        run.lose(worker, "out of memory")
        return None
    worker.task = None
    if kind == "absent":
        raise LibraryError(value[0], hint=value[1])
    if kind == "error":
        message, hint = value
        (run.suspects if worker.alone else run.todo).append(task)
        run.ledger.failure(task.index, message, hint=hint)
        return None
    return TaskEvent(index=task.index, done=True, result=value)


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()


def _work(
    pipe: Connection,
    shared: tuple[ctypes.c_longlong, ctypes.c_longlong],
    module: str,
    memory_bytes: int,
    parent: int,
) -> None:
    """The worker process."""
    begun, ticks = shared

    def beat(step: int) -> None:
        begun.value = step
        ticks.value += 1

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    _silence()
    with without_pandas():
        _one_thread()
        arrow_from_c()
        keep_freed()
        importlib.import_module(module)
        limit_growth(memory_bytes)
        _serve(pipe, beat)


def _serve(pipe: Connection, beat: Callable[[int], None]) -> None:
    """Do what the pipe brings until it is closed."""
    function: Function
    context: Any
    while True:
        try:
            kind, value = pipe.recv()
        except (EOFError, ConnectionError):
            return
        if kind == "work":
            function, context = value
            continue
        payload, skip, pause = value
        time.sleep(pause)
        try:
            result = function(context, payload, beat, skip)
        except Exception as error:  # noqa: BLE001  # whatever it is, the supervisor decides
            kind = "memory" if _is_out_of_memory(error) else "absent" if isinstance(error, LibraryError) else "error"
            pipe.send((kind, _said(error)))
            continue
        pipe.send(("done", result))


def _is_out_of_memory(error: BaseException) -> bool:
    seen: list[BaseException] = []  # an error may have been raised from itself
    link: BaseException | None = error
    while link is not None and link not in seen and not isinstance(link, MemoryError):
        seen.append(link)
        link = link.__cause__
    return isinstance(link, MemoryError)


def _said(error: Exception) -> tuple[str, str]:
    """Message and hint."""
    if isinstance(error, BiovfmError):
        return error.message, error.hint
    return f"{type(error).__name__}: {error}", ""


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def _silence() -> None:
    """Native decoders print to standard error, some of it quoted from the file: it must not reach a log."""
    if os.environ.get("BIOVFM_DEBUG") != "1":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _one_thread() -> None:
    """Workers share the cores: libraries must not start as many threads again."""
    cv2 = find_opencv()
    if cv2 is not None:
        cv2.setNumThreads(1)
