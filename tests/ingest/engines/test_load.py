"""What a task takes of a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.engines.load import Load


def node(*, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


@pytest.mark.parametrize(
    ("load", "places"),
    [(Load(), 17), (Load(cpus=4), 4), (Load(cpus=4, gpus=1), 2), (Load(cpus=16, gpus=1), 1), (Load(gpus=4), 0)],
)
def test_a_node_has_room_for_as_many_tasks_as_fit(load: Load, places: int) -> None:
    assert load.places(node(CPU=17.0, GPU=2.0)) == places
    assert load.places(node(alive=False, CPU=17.0, GPU=2.0)) == 0
    assert load.places(node()) == 0


def test_what_a_task_waits_for_is_said() -> None:
    assert Load().room == "a free CPU"
    assert Load(cpus=8, gpus=1).room == "8 free CPUs and a free GPU"
    assert Load(noun="run", gpus=2).room == "a free CPU and 2 free GPUs"
    assert Load(noun="run").again == "run the same command again; finished runs are kept"
