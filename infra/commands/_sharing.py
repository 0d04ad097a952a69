"""Which part of a job a process does: by the options, else by what the scheduler says."""

from __future__ import annotations

from ingest.job.share import Share
from shards.errors import ConfigError
from shards.settings import whole_number

__all__ = ["share_of"]


def share_of(num_tasks: int | None, task_index: int | None) -> Share | None:
    """The part of the job that is ours; None for all of it.

    A SLURM array tells how many tasks there are and which of them this is. A Kubernetes indexed Job tells the index
    alone: a pod that is not told how many there are does the whole job.

    Raises:
        ConfigError: One of the two is missing, there is no such task, or a variable holds no number.
    """
    if num_tasks is None:
        num_tasks = whole_number("SLURM_ARRAY_TASK_COUNT", None)
    if num_tasks is None:
        if task_index is not None:
            raise ConfigError(
                "--task-index without --num-tasks", hint="give --num-tasks, how many processes share the job"
            )
        return None
    if task_index is None:
        task_index = _index()
    if task_index is None:
        raise ConfigError("--num-tasks without --task-index", hint="give --task-index, from 0")
    return Share(num_tasks=num_tasks, task_index=task_index)


def _index() -> int | None:
    """The index that the scheduler gives, from 0."""
    place = whole_number("SLURM_ARRAY_TASK_ID", None)
    if place is None:
        return whole_number("JOB_COMPLETION_INDEX", None)
    return place - whole_number("SLURM_ARRAY_TASK_MIN", 0)
