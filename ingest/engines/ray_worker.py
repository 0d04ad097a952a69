"""What runs on the nodes of a Ray cluster: one actor per CPU, with one supervised process that it keeps."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from ingest.engines.base import Function, Supervision, Task
from ingest.engines.local import LocalEngine
from shards.errors import BiovfmError, LibraryError

__all__ = ["Outcome", "Place", "RayWorker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker runs.

    Attributes:
        node: Ray's id of the node.
        address: IP address of the node, for people.
        release: The version of the package there.
    """

    node: str
    address: str
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a task; an error travels as text, since not every exception can be pickled.

    Attributes:
        result: What the function returned.
        error: Why it failed; empty where it did not.
        hint: What to type or change then.
        absent: Whether a package is missing on the node, so that trying again does not help.
    """

    result: Any = None
    error: str = ""
    hint: str = ""
    absent: bool = False


class RayWorker:
    """Runs one task after the other in a process of its own, so that a decoder that crashes costs its file alone.

    Args:
        rules: How failures are met.
    """

    def __init__(self, rules: Supervision) -> None:
        self._engine = LocalEngine(1, rules)
        self._work: tuple[Function, Any] | None = None

    def place(self) -> Place:
        """Where this is; an answer says that the worker has started."""
        import ray

        context = ray.get_runtime_context()
        return Place(node=context.get_node_id(), address=ray.util.get_node_ip_address(), release=version("biovfm"))

    def prepare(self, work: tuple[Function, Any]) -> None:
        """Take the function and the context of the tasks that follow."""
        self._work = work

    def run(self, task: Task) -> Outcome:
        """Run one task to its end."""
        assert self._work is not None
        function, context = self._work
        try:
            events = list(self._engine.run(function, context, [task]))
        except BiovfmError as error:
            return Outcome(error=error.message, hint=error.hint, absent=isinstance(error, LibraryError))
        return Outcome(result=events[-1].result)
