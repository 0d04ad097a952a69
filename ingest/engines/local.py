"""Supervised local processes: a decoder that crashes or hangs costs its own file, never the job.

Each worker is a spawned process with one pipe and one shared number, the step (raw file) that it began last: a write
to memory, so that a step costs nothing and a worker that dies leaves it behind. When a worker dies or stays on one
step for too long, the supervisor starts another, tries the task again, and after `step_attempts` deaths on the same
step tells the task to skip it. Workers stay for the next run of their engine, since starting one takes as long as
dozens of images, and end when their supervisor does, however that ends.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from types import ModuleType, TracebackType
from typing import Any, Self

from ingest.engines.base import Function, Ledger, Supervision, Task, TaskEvent
from ingest.engines.memory import arrow_from_c, keep_freed

_POLL_SECONDS = 0.25


@dataclass(slots=True)
class _Worker:
    """A process, and what was last seen of it: `step` began no later than `since`."""

    process: BaseProcess
    pipe: Connection
    begun: ctypes.c_longlong
    work: object = None
    task: Task | None = None
    step: int = -1
    since: float = field(default_factory=time.monotonic)


class LocalEngine:
    """Runs tasks on this machine; as a context manager, or by `close`, it ends its processes.

    Args:
        workers: Processes; 0 runs everything in this process, unsupervised (for tests and debuggers).
        rules: How failures are met.
    """

    def __init__(self, workers: int = 1, rules: Supervision | None = None) -> None:
        self._num = workers
        self._rules = rules or Supervision()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, module: str) -> None:
        """Start the processes and let them import a module, while the caller does what comes before the first run."""
        while len(self._workers) < self._num:
            self._workers.append(_start(module))

    def run(self, function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        """Run the tasks; see `Engine`."""
        if self._num == 0:
            return _run_here(function, context, tasks)
        return self._run_supervised((function, context), tasks)

    def close(self) -> None:
        """End the processes; another run starts new ones."""
        while self._workers:
            _stop(self._workers.pop())

    def _run_supervised(self, work: tuple[Function, Any], tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        todo = deque(tasks)
        ledger = Ledger(self._rules)
        try:
            while todo or any(worker.task for worker in self._workers):
                self._hand_out(work, todo, ledger)
                ready = set(wait([worker.pipe for worker in self._workers], timeout=_POLL_SECONDS))
                for worker in list(self._workers):
                    lost = False
                    if worker.pipe in ready:
                        event, lost = _receive(worker, ledger, todo)
                    else:
                        event = _look(worker)
                        if worker.step >= 0 and time.monotonic() - worker.since > self._rules.step_timeout_seconds:
                            _bury(worker, ledger, todo, "timeout")
                            lost = True
                    if event:
                        yield event
                    if lost:
                        self._workers.remove(worker)
        finally:
            for worker in [worker for worker in self._workers if worker.task]:
                _stop(worker)
                self._workers.remove(worker)

    def _hand_out(self, work: tuple[Function, Any], todo: deque[Task], ledger: Ledger) -> None:
        idle = [worker for worker in self._workers if worker.task is None]
        for _ in range(min(len(todo) - len(idle), self._num - len(self._workers))):
            idle.append(_start(work[0].__module__))
            self._workers.append(idle[-1])
        for worker in idle[: len(todo)]:
            _give(worker, work, todo.popleft(), ledger)


def _run_here(function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
    for task in tasks:
        result = function(context, task.payload, _ignore, {})
        yield TaskEvent(index=task.index, done=True, result=result)


def _ignore(_step: int) -> None:
    pass


def _start(module: str) -> _Worker:
    spawn = get_context("spawn")
    ours, theirs = spawn.Pipe()
    begun = RawValue(ctypes.c_longlong, -1)
    process = spawn.Process(target=_work, args=(theirs, begun, module, os.getpid()), daemon=True)
    resource_tracker.ensure_running()  # its start would undo the next line
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the process ignores Ctrl-C by itself
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    theirs.close()
    return _Worker(process=process, pipe=ours, begun=begun)


def _give(worker: _Worker, work: tuple[Function, Any], task: Task, ledger: Ledger) -> None:
    worker.task, worker.step, worker.since = task, -1, time.monotonic()
    worker.begun.value = -1
    with suppress(BrokenPipeError, ConnectionError):  # a dead worker is noticed on its pipe
        if worker.work is not work:
            worker.pipe.send(("work", work))
            worker.work = work
        worker.pipe.send(("task", (task.payload, dict(ledger.skips(task.index)))))


def _look(worker: _Worker) -> TaskEvent | None:
    """The step that a worker has come to since it was last looked at."""
    step = worker.begun.value
    if worker.task is None or step == worker.step:
        return None
    worker.step, worker.since = step, time.monotonic()
    return TaskEvent(index=worker.task.index, step=step)


def _receive(worker: _Worker, ledger: Ledger, todo: deque[Task]) -> tuple[TaskEvent | None, bool]:
    """One message of a worker, and whether the worker is lost."""
    try:
        kind, value = worker.pipe.recv()
    except (EOFError, ConnectionError):
        _bury(worker, ledger, todo, "crashed")
        return None, True
    task = worker.task
    assert task is not None
    worker.task, worker.step = None, -1
    if kind == "error":
        ledger.failure(task.index, value)
        todo.append(task)
        return None, False
    return TaskEvent(index=task.index, done=True, result=value), False


def _bury(worker: _Worker, ledger: Ledger, todo: deque[Task], reason: str) -> None:
    _stop(worker)
    if worker.task is not None:
        ledger.death(worker.task.index, worker.begun.value, reason)
        todo.appendleft(worker.task)


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.kill()
    worker.process.join()


def _work(pipe: Connection, begun: ctypes.c_longlong, module: str, parent: int) -> None:
    """The worker process."""

    def beat(step: int) -> None:
        begun.value = step

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    _silence()
    sys.meta_path.insert(0, _WithoutPandas())
    _one_thread()
    arrow_from_c()
    keep_freed()
    importlib.import_module(module)
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
        payload, skip = value
        try:
            result = function(context, payload, beat, skip)
        except Exception as error:  # noqa: BLE001  # whatever it is, the supervisor decides
            pipe.send(("error", f"{type(error).__name__}: {error}"))
            continue
        pipe.send(("done", result))


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def _silence() -> None:
    """Native decoders print to standard error, some of it quoted from the file: it must not reach a log."""
    if os.environ.get("BIOVFM_DEBUG") != "1":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class _WithoutPandas(MetaPathFinder):
    """No reader needs pandas, and pyarrow imports it to see whether a list is a Series: a third of a worker's start."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Say that there is none."""
        del path, target
        if fullname == "pandas":
            raise ModuleNotFoundError("ingest workers have no pandas", name=fullname)


def _one_thread() -> None:
    """Workers share the cores: libraries must not start as many threads again."""
    import cv2

    cv2.setNumThreads(1)
