"""Where tasks run: supervised local processes, or a Ray cluster."""

from __future__ import annotations

from ingest.engines.base import Engine, Task, TaskEvent

__all__ = ["Engine", "Task", "TaskEvent"]
