from __future__ import annotations

from collections.abc import Iterator

import pytest

from train.distributed import join_world


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    """Checkpoints are written by a group of processes, be it of one."""
    with join_world():
        yield
