"""A Ray cluster as engine: the same functions, the same bytes.

Each CPU of the cluster, or whatever a task needs (`ingest.engines.load`), gets a worker (`RayWorker`, an actor) that
runs one task at a time, so a node that is lost costs at most as many tasks as it has room for; they go to other nodes.
Actors are used, not Ray's tasks: Ray ends the calls of an actor as soon as the cluster has given its node up, but those
of a task only when the connection breaks, which takes seven minutes where a host vanishes without a word. Install with
the extra `ray`.
"""

from __future__ import annotations

import logging
import math
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from ingest.engines.base import Function, Supervision, Task, TaskEvent
from ingest.engines.load import Load
from ingest.engines.ray_worker import Outcome, Place, RayWorker
from shards.errors import EngineError, LibraryError

__all__ = ["RayEngine"]

_CONNECT_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 5.0
"""From one look at the cluster's nodes to the next."""
_QUIET_SECONDS: Final = 15.0
"""A wait for a free CPU is not worth a word before."""
_WORKERS_PER_PLACE: Final = 2
"""Those that find no room wait for it: this is the demand that an autoscaler sees."""
_STARTS: Final = 3
"""Workers that may fail to start before any has started."""
_INGEST: Final = Load()


def _say(line: str) -> None:
    sys.stderr.write(f"biovfm: {line}\n")
    sys.stderr.flush()


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    """An actor; `answer` is what it will answer next: where it is, then the outcome of `task`."""

    actor: Any
    answer: Any
    place: Place | None = None
    task: Task | None = None
    prepared: Any = None


@dataclass(slots=True, kw_only=True)
class _Run:
    """Tasks under way; `lost` counts how often each went down with its worker, `told` is for the caller."""

    work: Any
    todo: deque[Task]
    told: list[TaskEvent] = field(default_factory=list)
    lost: Counter[int] = field(default_factory=Counter)
    alive_at: float = field(default_factory=time.monotonic)
    waiting: bool = False


class RayEngine:
    """Runs tasks on a Ray cluster.

    Args:
        address: Of the cluster, e.g. `ray://head:10001` or `auto`; `local` starts one on this machine, None starts or
            finds one as Ray does.
        rules: How failures are met.
        node_retries: Times a task is run again whose node or worker was lost.
        patience_seconds: How long a job may be without any worker; infinite for one that waits for its turn.
        load: What the tasks are and need.
        tell: Is given a line about each node that is lost or fails, and about what becomes of its tasks.

    Raises:
        EngineError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        rules: Supervision | None = None,
        node_retries: int = 3,
        patience_seconds: float = 600.0,
        load: Load = _INGEST,
        tell: Callable[[str], None] = _say,
    ) -> None:
        try:
            import ray
        except ImportError as error:
            raise EngineError("Ray is not installed", hint="pip install 'biovfm[ray]'") from error
        self._ray = ray
        self._rules = rules or Supervision()
        self._node_retries = node_retries
        self._patience = patience_seconds
        self._load = load
        self._tell = tell
        self._address = address
        self._joined = False
        self._workers: list[_Worker] = []
        self._barred: set[str] = set()
        self._failed_starts = 0
        self._looked_at = 0.0
        self._places = 0
        self._join()

    def _join(self) -> None:
        ray = self._ray
        if not ray.is_initialized():
            _check_reachable(self._address)
            alone = False if self._address in {None, "local"} else None
            try:
                ray.init(
                    address=self._address, log_to_driver=False, include_dashboard=alone, logging_level=logging.WARNING
                )
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                raise EngineError(f"no Ray cluster at {self._address}: {error}", hint="check --address") from error
            self._joined = True

    @property
    def num_workers(self) -> int:
        """Nobody knows: nodes come and go."""
        return 0

    def release(self) -> None:
        """End the workers, and leave the cluster where this engine joined it."""
        for worker in self._workers:
            self._end(worker)
        self._workers.clear()
        if self._joined:
            self._ray.shutdown()
            self._joined = False

    def run(self, function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        """Run the tasks; see `Engine`. Steps inside a task are not reported."""
        self._join()
        run = _Run(work=self._ray.put((function, context)), todo=deque(tasks))
        self._looked_at = 0.0
        try:
            while run.todo or any(worker.task for worker in self._workers):
                self._look_at_nodes(run)
                self._recruit(run)
                self._hand_out(run)
                yield from self._collect(run)
                self._dismiss(run)
                while run.told:
                    yield run.told.pop()
        finally:
            for worker in [worker for worker in self._workers if worker.task]:
                self._end(worker)
                self._workers.remove(worker)

    def _look_at_nodes(self, run: _Run) -> None:
        """Every few seconds: how much room there is, and whether the nodes of the workers are alive."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = now
        nodes = self._ray.nodes()
        self._places = sum(map(self._load.places, nodes))
        dead = {node["NodeID"] for node in nodes if not node["Alive"]}
        self._lose({worker: "" for worker in self._workers if worker.place and worker.place.node in dead}, run)
        self._check_patience(run, now)

    def _check_patience(self, run: _Run, now: float) -> None:
        if any(worker.place for worker in self._workers):
            run.alive_at, run.waiting = now, False
            return
        waited = now - run.alive_at
        if waited > self._patience:
            raise EngineError(
                f"no node of the Ray cluster had {self._load.room} for {self._patience:.0f} s",
                hint=f"`ray status` shows its nodes; {self._load.again}",
            )
        if waited > _QUIET_SECONDS and not run.waiting:
            run.waiting = True
            limit = "" if math.isinf(self._patience) else f" up to {self._patience:.0f} s"
            self._tell(f"no node of the Ray cluster has {self._load.room}; waiting{limit} for one")

    def _recruit(self, run: _Run) -> None:
        """Start workers, no more than there is work for."""
        busy = sum(worker.task is not None for worker in self._workers)
        usable = [worker for worker in self._workers if worker.place is None or worker.place.node not in self._barred]
        most = max(1, self._places) * _WORKERS_PER_PLACE - (len(self._workers) - len(usable))
        needs = {"num_cpus": self._load.cpus, "num_gpus": self._load.gpus}
        remote = self._ray.remote(**needs, max_restarts=0, max_task_retries=0)(RayWorker)
        for _ in range(min(len(run.todo) + busy, most) - len(usable)):
            actor = remote.remote(self._rules)
            self._workers.append(_Worker(actor=actor, answer=actor.place.remote()))

    def _hand_out(self, run: _Run) -> None:
        for worker in self._workers:
            if not run.todo:
                return
            if worker.place is None or worker.task is not None or worker.place.node in self._barred:
                continue
            if worker.prepared is not run.work:
                worker.actor.prepare.remote(run.work)
                worker.prepared = run.work
            worker.task = run.todo.popleft()
            worker.answer = worker.actor.run.remote(worker.task)

    def _dismiss(self, run: _Run) -> None:
        """Give back what workers hold for which nothing is left to do."""
        if self._load.keeps_workers or run.todo:
            return
        for worker in [worker for worker in self._workers if worker.task is None]:
            self._end(worker)
            self._workers.remove(worker)

    def _collect(self, run: _Run) -> Iterator[TaskEvent]:
        """Wait a moment for answers, and take those that are there."""
        asked = {worker.answer: worker for worker in self._workers if worker.answer is not None}
        if not asked:  # the last worker was lost, and its task was given up
            return
        ready, others = self._ray.wait(list(asked), num_returns=1, timeout=_POLL_SECONDS)
        if ready and others:
            ready += self._ray.wait(others, num_returns=len(others), timeout=0)[0]
        lost: dict[_Worker, str] = {}
        for worker in map(asked.__getitem__, ready):
            got, reason = self._answer_of(worker)
            if got is None:
                lost[worker] = reason
                continue
            worker.answer = None
            if worker.place is None:
                self._arrived(worker, got)
            elif event := self._finished(worker, got, run):
                yield event
        self._lose(lost, run)

    def _answer_of(self, worker: _Worker) -> tuple[Any, str]:
        """What a worker has answered; None and the reason where it is lost."""
        faults = self._ray.exceptions
        try:
            return self._ray.get(worker.answer), ""
        except faults.RayTaskError as error:
            return Outcome(error=_last_line(error)), ""
        except faults.OutOfMemoryError:
            return None, "the node ran out of memory"
        except faults.RayError as error:
            return None, _last_line(error)

    def _arrived(self, worker: _Worker, got: Place | Outcome) -> None:
        """A worker has started."""
        if isinstance(got, Outcome):
            raise EngineError(f"a worker cannot start on the Ray cluster: {got.error}", hint=_same_release())
        if got.release != version("biovfm"):
            raise EngineError(f"node {got.address} has biovfm {got.release}", hint=_same_release())
        worker.place = got
        self._failed_starts = 0

    def _finished(self, worker: _Worker, got: Outcome, run: _Run) -> TaskEvent | None:
        """A task has ended, well or not."""
        task, place = worker.task, worker.place
        assert task is not None
        assert place is not None
        worker.task = None
        if got.absent:
            raise LibraryError(f"node {place.address}: {got.error}", hint=got.hint)
        if got.error:
            self._barred.add(place.node)
            if not self._has_another_node():
                hint = got.hint or f"remove the cause, then {self._load.again}"
                raise EngineError(f"node {place.address}: {got.error}", hint=hint)
            gets = f"it gets no more {self._load.noun}s"
            self._tell(f"node {place.address}: {got.error}; {gets}, and another node takes this one")
            run.todo.appendleft(task)
            return None
        if run.lost[task.index]:
            self._tell(f"{self._load.noun} {task.index}, which was lost, is done on node {place.address}")
        return TaskEvent(index=task.index, done=True, result=got.result)

    def _has_another_node(self) -> bool:
        """Whether the cluster has a node with room on which no task has failed."""
        return any(self._load.places(node) and node["NodeID"] not in self._barred for node in self._ray.nodes())

    def _lose(self, lost: Mapping[_Worker, str], run: _Run) -> None:
        """Give up workers, and with one whose node is dead all of that node; their tasks are to be done first."""
        if not lost:
            return
        dead = {node["NodeID"] for node in self._ray.nodes() if not node["Alive"]}
        gone = dict(lost) | {worker: "" for worker in self._workers if worker.place and worker.place.node in dead}
        losses: dict[str, list[Task]] = {}
        for worker, reason in gone.items():
            self._workers.remove(worker)
            self._end(worker)
            if worker.place is None:
                self._count_start(reason)
            else:
                held = losses.setdefault(_loss(worker.place, reason, is_dead=worker.place.node in dead), [])
                held += [worker.task] if worker.task else []
        for loss, tasks in losses.items():
            again = [task for task in tasks if self._is_tried_again(task, run, loss)]
            self._tell(f"{loss}; {self._becomes_of(tasks, again)}")
            run.todo.extendleft(reversed(again))

    def _count_start(self, reason: str) -> None:
        """Give up where workers fail to start, one after the other."""
        self._failed_starts += 1
        if self._failed_starts >= _STARTS:
            raise EngineError(f"no worker starts on the Ray cluster: {reason}", hint=_same_release())

    def _is_tried_again(self, task: Task, run: _Run, loss: str) -> bool:
        """Count a loss; a task that went down with its worker too often is given up, or the whole job."""
        run.lost[task.index] += 1
        if run.lost[task.index] <= self._node_retries:
            return True
        why = f"{self._load.noun} {task.index} was lost {run.lost[task.index]} times with its worker: {loss}"
        if not self._load.goes_on:
            hint = (
                f"a node that is short of memory ends its workers: give it more, or fewer CPUs; then {self._load.again}"
            )
            raise EngineError(why, hint=hint)
        run.told.append(TaskEvent(index=task.index, done=True, lost=why))
        return False

    def _becomes_of(self, tasks: Sequence[Task], again: Sequence[Task]) -> str:
        """What becomes of tasks that were lost, some of which are done again."""
        if not tasks:
            return f"no {self._load.noun} was under way there"
        given_up = [task for task in tasks if task not in again]
        ends = ((again, "will be done elsewhere"), (given_up, "given up"))
        return ", ".join(f"{self._named(some)} {end}" for some, end in ends if some)

    def _named(self, tasks: Sequence[Task]) -> str:
        return f"{self._load.noun}{'s' if len(tasks) > 1 else ''} {', '.join(str(task.index) for task in tasks)}"

    def _end(self, worker: _Worker) -> None:
        with suppress(Exception):  # dead already, or out of reach
            self._ray.kill(worker.actor)


def _check_reachable(address: str | None) -> None:
    """See within seconds whether anything answers at an address; Ray itself tries for minutes.

    Raises:
        EngineError: Nothing does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():  # a word such as `auto`
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise EngineError(f"no Ray cluster at {address}: {error}", hint="check --address") from error


def _loss(place: Place, reason: str, *, is_dead: bool) -> str:
    if is_dead:
        return f"node {place.address} of the Ray cluster is lost"
    return f"a worker on node {place.address} is lost ({reason})"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _same_release() -> str:
    return f"install biovfm {version('biovfm')} with the same extras on each node"
