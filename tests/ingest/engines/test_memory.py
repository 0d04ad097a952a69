"""The memory limit of workers: what a decoder takes without asking costs its own step, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from ingest.engines.base import Supervision, Task
from ingest.engines.local import LocalEngine
from ingest.engines.memory import limit_growth
from ingest.settings import LimitSettings

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")]
MIB = 1 << 20


def take(context: int, sizes: list[int], beat: Callable[[int], None], skip: Mapping[int, str]) -> list[str]:
    """Hold arrays of these sizes one after the other, in MiB, with all their pages in use."""
    done = []
    for step, size in enumerate(sizes):
        beat(step)
        if step in skip:
            done.append("skipped")
            continue
        held = np.ones(size * MIB, np.uint8)
        done.append("ok" if int(held[:: 4 * MIB].sum()) else "")
    return done


def test_a_step_that_takes_more_than_its_share_is_skipped_and_the_others_are_done() -> None:
    rules = Supervision(memory_bytes=256 * MIB)
    tasks = [Task(index=0, payload=[1, 200, 1200, 5]), Task(index=1, payload=[250, 250, 250])]
    with LocalEngine(2, rules) as engine:
        found = {event.index: event.result for event in engine.run(take, 0, tasks) if event.done}
    assert found == {0: ["ok", "ok", "skipped", "ok"], 1: ["ok"] * 3}


def test_the_limit_is_the_budget_of_the_settings() -> None:
    assert Supervision.of(LimitSettings()).memory_bytes == 2 << 30
    assert Supervision.of(LimitSettings(decoded_bytes=1 << 24)).memory_bytes == 1 << 24
    assert limit_growth(0) == 0


def test_reserved_address_space_does_not_count() -> None:
    """Libraries reserve far more than they use: a limit of the address space would hurt jobs that use little."""
    program = (
        "import mmap; from ingest.engines.memory import limit_growth\n"
        "assert limit_growth(64 << 20)\n"
        "reserved = mmap.mmap(-1, 8 << 30, prot=0)\n"
        "shared = mmap.mmap(-1, 2 << 30)\n"
        "held = bytearray(200 << 20)\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: print('limited')\n"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=True)
    assert answer.stdout == "limited\n"
