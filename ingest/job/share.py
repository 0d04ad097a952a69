"""A job that several processes share."""

from __future__ import annotations

from dataclasses import dataclass

from shards.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Which part of a job one of several processes does (a SLURM array, a Kubernetes indexed job).

    Every process maps each `num_tasks`-th unit. The one that finds all units finished settles and commits; if several
    do, the commit still happens once.

    Attributes:
        num_tasks: Processes that share the job.
        task_index: Which of them this is, from 0.
    """

    num_tasks: int
    task_index: int

    def __post_init__(self) -> None:
        if not 0 <= self.task_index < self.num_tasks:
            raise ConfigError(
                f"task index {self.task_index} is not in 0 … {self.num_tasks - 1}", hint="indices count from 0"
            )

    def has(self, index: int) -> bool:
        """Whether this process maps the unit of an index."""
        return index % self.num_tasks == self.task_index
