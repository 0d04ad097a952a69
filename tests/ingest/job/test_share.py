"""Which part of a job a process does."""

from __future__ import annotations

import pytest

from ingest.job.share import Share
from shards.errors import ConfigError


@pytest.mark.parametrize(("num_tasks", "task_index"), [(2, 2), (2, -1), (0, 0)])
def test_a_task_that_is_none_of_the_tasks_is_refused(num_tasks: int, task_index: int) -> None:
    with pytest.raises(ConfigError, match=f"task index {task_index} is not in"):
        Share(num_tasks=num_tasks, task_index=task_index)


def test_each_unit_is_of_one_task() -> None:
    shares = [Share(num_tasks=3, task_index=index) for index in range(3)]
    assert [[unit for unit in range(8) if share.has(unit)] for share in shares] == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_indices_count_from_zero() -> None:
    assert [Share(num_tasks=2, task_index=index).task_index for index in (0, 1)] == [0, 1]
