"""What tasks are called, and what one of them takes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Load"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What the tasks of an engine are, and what they take of a cluster.

    Attributes:
        noun: What a task is called.
        cpus: That one task needs, on one node.
        gpus: Likewise.
        keeps_workers: Whether a worker stays for later tasks; otherwise what it holds goes back when none is left.
        goes_on: Whether a task that was lost too often is told and the others go on; otherwise it ends the job.
    """

    noun: str = "unit"
    cpus: int = 1
    gpus: int = 0
    keeps_workers: bool = True
    goes_on: bool = False

    def places(self, node: Mapping[str, Any]) -> int:
        """Tasks that a node has room for while it does nothing else."""
        if not node["Alive"]:
            return 0
        resources = node["Resources"]
        fitting = int(resources.get("CPU", 0)) // self.cpus
        return min(fitting, int(resources.get("GPU", 0)) // self.gpus) if self.gpus else fitting

    @property
    def room(self) -> str:
        """What a task waits for, for the user."""
        words = ["a free CPU" if self.cpus == 1 else f"{self.cpus} free CPUs"]
        if self.gpus:
            words.append("a free GPU" if self.gpus == 1 else f"{self.gpus} free GPUs")
        return " and ".join(words)

    @property
    def again(self) -> str:
        """What to do after an error, for the user."""
        return f"run the same command again; finished {self.noun}s are kept"
