"""One command of biovfm under one fault, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.bench.soak.faults import PREPARED, FaultAction, Scene
from infra.bench.soak.places import Place

__all__ = ["Attempt", "CommandFailedError", "attempt", "reap", "undisturbed"]

_LIMIT_SECONDS = 400.0
_AFTER_SIGTERM = (0, 130, -15)  # -15: before Python could take the signal, or when it had ended
_KILLING = frozenset({"kill -9", "kill -9, main process", "SIGTERM"})
_ENVIRONMENT = {"BIOVFM_SECRET": "soak", "OMP_NUM_THREADS": "1", "BIOVFM_DEBUG": ""}


class CommandFailedError(AssertionError):
    """A command that nothing disturbed did not end with exit code 0."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """How a command ended.

    Attributes:
        place: Name of the place.
        action: What was asked for.
        fault: What happened to it.
        detail: More about the fault.
        exit_code: Negative for a signal.
        seconds: It took.
        answer: The JSON object that it printed; empty where it printed none.
        lines: Lines of its standard output.
        errors: Its standard error.
        rotten: Whether a byte of a shard was another one meanwhile.
        findings: What must not be.
        group: Its process group: workers may outlive it.
    """

    place: str
    action: str
    fault: str
    detail: str = ""
    exit_code: int = 0
    seconds: float = 0.0
    answer: Mapping[str, Any] = field(default_factory=dict)
    lines: Sequence[str] = ()
    errors: Sequence[str] = ()
    rotten: bool = False
    findings: list[str] = field(default_factory=list)
    group: int = 0

    @property
    def error(self) -> str:
        """The last line of its standard error."""
        return self.errors[-1] if self.errors else ""


def attempt(
    place: Place,
    action: str,
    arguments: Sequence[str],
    *,
    fault: tuple[str, FaultAction],
    rng: random.Random,
    seconds: float,
    environment: Mapping[str, str] | None = None,
) -> Attempt:
    """Run `biovfm ARGUMENTS` while the fault happens.

    Args:
        place: Where the dataset lies.
        action: Name of what is asked for.
        arguments: Of the command line.
        fault: Name and action.
        rng: Decides when and how it happens.
        seconds: How long the command takes undisturbed, about.
        environment: More variables.
    """
    name, act = fault
    outcome = Attempt(place=place.name, action=action, fault=name)
    scene = Scene(place=place, rng=rng, seconds=seconds)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, "-m", "infra.cli", *arguments],
                stdout=out,
                stderr=err,
                env={**os.environ, **_ENVIRONMENT, **place.environment, **(environment or {})},
                start_new_session=True,
            )

        with _acting(scene, act, start, prepared=name in PREPARED):
            _wait(scene.process, outcome)
        outcome.detail, outcome.rotten = scene.detail, scene.rotten
        out.seek(0), err.seek(0)
        outcome.lines = out.read().decode(errors="replace").splitlines()
        outcome.errors = err.read().decode(errors="replace").splitlines()
    outcome.answer = _object_in(outcome.lines)
    outcome.findings += scene.failures
    if any(line.startswith("Traceback") for line in outcome.errors):
        outcome.findings.append(f"printed a traceback: {outcome.error}")
    if outcome.exit_code < 0 and name not in _KILLING:
        outcome.findings.append(f"was ended by {signal.Signals(-outcome.exit_code).name}")
    if name == "SIGTERM" and outcome.exit_code not in _AFTER_SIGTERM:
        outcome.findings.append(f"ended with {outcome.exit_code} after SIGTERM: {' / '.join(outcome.errors[-3:])}")
    return outcome


def _wait(process: subprocess.Popen[bytes], outcome: Attempt) -> None:
    begin = time.monotonic()
    outcome.group = process.pid
    try:
        outcome.exit_code = process.wait(_LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        outcome.findings.append(f"did not end within {_LIMIT_SECONDS:.0f} s")
        os.killpg(process.pid, signal.SIGKILL)
        outcome.exit_code = process.wait()
    outcome.seconds = time.monotonic() - begin


@contextlib.contextmanager
def _acting(
    scene: Scene, act: FaultAction, start: Callable[[], subprocess.Popen[bytes]], *, prepared: bool
) -> Iterator[None]:
    """Start the command and the fault; on the way out tell the fault that the command is over, and wait for it."""
    thread = threading.Thread(target=act, args=(scene,), name="fault")
    try:
        if prepared:
            thread.start()
            scene.ready.wait(_LIMIT_SECONDS)
        scene.process = start()
        if not prepared:
            thread.start()
        yield
    finally:
        scene.over.set()
        thread.join()


def reap(attempts: Sequence[Attempt]) -> None:
    """End what these attempts have left running."""
    for one in attempts:
        if not one.group:  # 0 would be this process's own group
            continue
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(one.group, signal.SIGKILL)


def undisturbed(arguments: Sequence[str]) -> Mapping[str, Any]:
    """Run `biovfm ARGUMENTS` with nothing in its way, and take the JSON object that it prints.

    Raises:
        CommandFailedError: Its exit code is not 0.
    """
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **_ENVIRONMENT},
    )
    if done.returncode:
        raise CommandFailedError(f"biovfm {' '.join(arguments)} ended with {done.returncode}: {done.stderr[-500:]}")
    return {**_object_in(done.stdout.splitlines()), "lines": done.stdout.splitlines()}


def _object_in(lines: Sequence[str]) -> Mapping[str, Any]:
    for line in reversed(lines):
        if line.startswith("{"):
            found = json.loads(line)
            assert isinstance(found, dict)
            return found
    return {}
