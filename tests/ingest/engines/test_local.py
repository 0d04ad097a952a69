"""Supervised processes: what is laid to a raw file, what to the machine, and what keeps a long file alive."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ingest.engines.base import Ledger, Supervision, Task
from ingest.engines.local import LocalEngine
from shards.errors import ConfigError, EngineError, LibraryError, MachineError

RULES = Supervision(
    step_timeout_seconds=1.5, start_timeout_seconds=20.0, step_attempts=2, task_attempts=3, pause_seconds=0.01
)


def run(function: Any, context: Any, *, workers: int = 1, tasks: int = 1) -> list[Any]:
    with LocalEngine(workers, RULES) as engine:
        todo = [Task(index=n, payload=n) for n in range(tasks)]
        return [event.result for event in engine.run(function, context, todo) if event.done]


def hungry(_context: Any, _payload: Any, beat: Callable[[int], None], skip: Mapping[int, str]) -> dict[int, str]:
    for step in range(3):
        beat(step)
        if step == 1 and step not in skip:
            raise MachineError("out of memory") from MemoryError()
    return dict(skip)


def dies_once(folder: str, payload: int, beat: Callable[[int], None], skip: Mapping[int, str]) -> dict[int, str]:
    beat(0)
    mark = Path(folder) / str(payload)
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return dict(skip)


def alone(folder: str, payload: int, beat: Callable[[int], None], skip: Mapping[int, str]) -> bool:
    """Task 0 dies the first time; whether another task ran while it was tried again."""
    beat(0)
    path = Path(folder) / f"busy{payload}"
    if payload == 0:
        if not (Path(folder) / "died").exists():
            (Path(folder) / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return any(Path(folder).glob("busy*"))
    path.touch()
    time.sleep(0.3)
    path.unlink()
    return bool(skip)


def full(_context: Any, _payload: Any, beat: Callable[[int], None], _skip: Mapping[int, str]) -> None:
    beat(0)
    raise OSError(errno.ENOSPC, "No space left on device")


def raises_itself(_context: Any, _payload: Any, beat: Callable[[int], None], _skip: Mapping[int, str]) -> None:
    """As a reader's error that is met again further up."""
    beat(0)
    error = MachineError("no space", hint="free some")
    raise error from error


def lacks(_context: Any, _payload: Any, beat: Callable[[int], None], _skip: Mapping[int, str]) -> None:
    beat(0)
    raise LibraryError("this needs that", hint="pip install that")


def long_film(_context: Any, _payload: Any, beat: Callable[[int], None], skip: Mapping[int, str]) -> dict[int, str]:
    """One step that takes longer than the limit, and gets on."""
    for _ in range(8):
        beat(0)
        time.sleep(0.4)
    return dict(skip)


def stops_before_its_first_step(
    folder: str, _payload: Any, beat: Callable[[int], None], _skip: Mapping[int, str]
) -> bool:
    mark = Path(folder) / "stopped"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    beat(0)
    return True


@pytest.mark.slow
def test_a_process_that_stops_before_its_first_step_is_replaced(tmp_path: Path) -> None:
    rules = Supervision(start_timeout_seconds=4.0, pause_seconds=0.01)
    with LocalEngine(1, rules) as engine:
        events = engine.run(stops_before_its_first_step, str(tmp_path), [Task(index=0, payload=0)])
        assert [event.result for event in events if event.done] == [True]


@pytest.mark.slow
def test_a_step_that_exhausts_a_fresh_process_is_given_up() -> None:
    assert run(hungry, None) == [{1: "out of memory"}]


@pytest.mark.slow
def test_a_process_that_dies_once_costs_nothing(tmp_path: Path) -> None:
    """The system may have killed it for what others did."""
    assert run(dies_once, str(tmp_path), workers=2, tasks=3) == [{}, {}, {}]


@pytest.mark.slow
def test_a_suspect_is_tried_again_when_nothing_else_runs(tmp_path: Path) -> None:
    assert run(alone, str(tmp_path), workers=2, tasks=5) == [False] * 5


@pytest.mark.slow
def test_an_error_of_the_machine_ends_the_job() -> None:
    with pytest.raises(EngineError, match=r"unit 0 failed 3 times: OSError.*No space left on device.*run the same"):
        run(full, None)


@pytest.mark.slow
def test_an_error_that_is_its_own_cause_ends_the_job_too() -> None:
    with pytest.raises(EngineError, match="unit 0 failed 3 times: no space"):
        run(raises_itself, None)


@pytest.mark.slow
def test_a_missing_library_is_told_at_once_as_what_it_is() -> None:
    with pytest.raises(LibraryError) as caught:
        run(lacks, None)
    assert (caught.value.message, caught.value.hint) == ("this needs that", "pip install that")


@pytest.mark.slow
def test_what_gets_on_is_not_stopped() -> None:
    assert run(long_film, None) == [{}]


def test_without_processes_an_error_of_the_machine_is_one_line() -> None:
    with pytest.raises(MachineError, match=r"unit 0: .*No space left on device"):
        run(full, None, workers=0)


def test_negative_workers_are_refused() -> None:
    with pytest.raises(ConfigError, match="-5 workers"):
        LocalEngine(-5)


def test_the_ledger_lays_nothing_to_a_step_that_did_not_run_alone() -> None:
    ledger = Ledger(RULES)
    for _ in range(5):
        ledger.death(0, 3, "crashed", alone=False)
    ledger.death(0, 3, "crashed", alone=True)
    assert not ledger.skips(0)
    ledger.death(0, 3, "crashed", alone=True)
    assert ledger.skips(0) == {3: "crashed"}


def test_the_ledger_waits_longer_each_time_and_then_gives_the_job_up() -> None:
    ledger = Ledger(RULES)
    assert ledger.pause(0) == 0
    ledger.failure(0, "no")
    first = ledger.pause(0)
    ledger.failure(0, "no")
    assert ledger.pause(0) == 2 * first > 0
    with pytest.raises(EngineError, match="unit 0 failed 3 times: no — free disk space, then run the same command"):
        ledger.failure(0, "no", hint="free disk space")
    for _ in range(2):
        ledger.death(1, -1, "crashed", alone=False)
    with pytest.raises(EngineError, match="died before its first step"):
        ledger.death(1, -1, "crashed", alone=False)
