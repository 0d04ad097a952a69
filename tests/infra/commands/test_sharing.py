"""Which task of a job this is: by the options, else by what SLURM or Kubernetes says."""

from __future__ import annotations

import pytest

from infra.commands._sharing import share_of
from ingest.job.share import Share
from shards.errors import ConfigError

VARIABLES = ("SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "JOB_COMPLETION_INDEX")
ARRAY = {"SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10"}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("num_tasks", "task_index", "variables", "share"),
    [
        (None, None, {}, None),
        (3, 2, {}, (3, 2)),
        (3, 2, ARRAY, (3, 2)),
        (None, None, ARRAY, (4, 2)),
        (None, 1, ARRAY, (4, 1)),
        (3, None, {"JOB_COMPLETION_INDEX": "1"}, (3, 1)),
        (None, None, {"JOB_COMPLETION_INDEX": "1"}, None),
    ],
)
def test_a_share(
    num_tasks: int | None,
    task_index: int | None,
    variables: dict[str, str],
    share: tuple[int, int] | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = None if share is None else Share(num_tasks=share[0], task_index=share[1])
    assert share_of(num_tasks, task_index) == expected


@pytest.mark.parametrize(
    ("num_tasks", "task_index", "variables", "message"),
    [
        (None, 2, {}, "--task-index without --num-tasks"),
        (2, None, {}, "--num-tasks without --task-index"),
        (2, None, {"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX is 'x'"),
        (None, None, {"SLURM_ARRAY_TASK_COUNT": ""}, "SLURM_ARRAY_TASK_COUNT is ''"),
        (None, None, {**ARRAY, "SLURM_ARRAY_TASK_ID": "a"}, "SLURM_ARRAY_TASK_ID is 'a'"),
        (2, 2, {}, "task index 2 is not in 0"),
    ],
)
def test_what_does_not_say_it_is_refused(
    num_tasks: int | None,
    task_index: int | None,
    variables: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        share_of(num_tasks, task_index)
