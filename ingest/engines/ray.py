"""A Ray cluster as engine: the same functions, the same bytes.

A task is a Ray task that supervises one local process (`LocalEngine`) on its node, so a crashing decoder is isolated
there as it is on one machine; Ray adds retries when a node is lost. At most two tasks a CPU are in flight, which is
the back-pressure: nothing piles up in the object store. Install with the extra `ray`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ingest.engines.base import Function, Supervision, Task, TaskEvent
from ingest.engines.local import LocalEngine
from shards.errors import EngineError

_IN_FLIGHT_PER_CPU = 2


class RayEngine:
    """Runs tasks on a Ray cluster.

    Args:
        address: Of the cluster, e.g. `ray://head:10001` or `auto`; None starts or finds one as Ray does.
        rules: How failures are met.
        node_retries: Times a task is run again when its node was lost.

    Raises:
        EngineError: Ray is not installed, or the cluster cannot be reached.
    """

    def __init__(self, *, address: str | None = None, rules: Supervision | None = None, node_retries: int = 3) -> None:
        try:
            import ray
        except ImportError as error:
            raise EngineError("Ray is not installed", hint="pip install 'biovfm[ray]'") from error
        self._ray = ray
        self._rules = rules or Supervision()
        self._node_retries = node_retries
        self._address = address
        self._joined = False
        self._join()

    def _join(self) -> None:
        if not self._ray.is_initialized():
            alone = False if self._address is None else None
            try:
                self._ray.init(address=self._address, log_to_driver=False, include_dashboard=alone)
            except (ConnectionError, RuntimeError) as error:
                raise EngineError(f"no Ray cluster at {self._address}: {error}", hint="check --address") from error
            self._joined = True

    def release(self) -> None:
        """Leave the cluster, where this engine joined it."""
        if self._joined:
            self._ray.shutdown()
            self._joined = False

    def run(self, function: Function, context: Any, tasks: Sequence[Task]) -> Iterator[TaskEvent]:
        """Run the tasks; see `Engine`. Steps inside a task are not reported."""
        ray = self._ray
        self._join()
        remote = ray.remote(num_cpus=1, max_retries=self._node_retries)(_supervised)
        shared = ray.put((function, context, self._rules))
        most = max(1, int(ray.cluster_resources().get("CPU", 1))) * _IN_FLIGHT_PER_CPU
        todo = list(reversed(tasks))
        running: dict[Any, int] = {}
        while todo or running:
            while todo and len(running) < most:
                task = todo.pop()
                running[remote.remote(shared, task)] = task.index
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                index = running.pop(reference)
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayError as error:
                    raise EngineError(
                        f"unit {index} failed on the cluster: {str(error).splitlines()[-1]}",
                        hint="remove the cause and run the same command again; finished units are kept",
                    ) from error
                yield TaskEvent(index=index, done=True, result=result)


def _supervised(shared: tuple[Function, Any, Supervision], task: Task) -> Any:
    """On a worker node: one task in a supervised process of its own."""
    function, context, rules = shared
    with LocalEngine(1, rules) as engine:
        return next(event.result for event in engine.run(function, context, [task]) if event.done)
