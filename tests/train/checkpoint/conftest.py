from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def world() -> Iterator[None]:
    """Checkpoints are written by a group of processes, be it of one."""
    from train.distributed import join_world  # torch is imported by the tests that need it

    with join_world():
        yield
