"""Execute planned runs: the package's own sub-commands as child processes, one folder a run.

A run that is killed goes on when the sweep is started again: `pretrain` from its last checkpoint, `probe` from its
cached features. A run that fails leaves its log and the others go on.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from infra.reports.scaling import write_csv
from infra.sweep.plan import RESULT, RESULTS, Plan, PlannedRun, rows_of
from shards.errors import RunFailedError
from shards.files import json_text, write_text

_ON_LINUX: Final = sys.platform == "linux"
_PRCTL: Final = ctypes.CDLL(None).prctl if _ON_LINUX else None
_SET_PARENT_DEATH_SIGNAL: Final = 1


def run_pending(plan: Plan, *, tell: Callable[[PlannedRun, str], None]) -> list[str]:
    """Execute every run that has no result, one after the other.

    Args:
        plan: From `infra.sweep.plan`.
        tell: Called with a run and `running`, `done`, `failed: …` or `finished before`.

    Returns:
        Ids of the runs that failed.
    """
    failed = []
    for run in plan.runs:
        if plan.is_finished(run):
            tell(run, "finished before")
            continue
        tell(run, "running")
        try:
            execute(plan, run)
        except RunFailedError as error:
            failed.append(run.id)
            tell(run, f"failed: {error.message}")
        else:
            tell(run, "done")
        collect(plan)
    collect(plan)
    return failed


def launch_words(launcher: Sequence[str]) -> list[str]:
    """The command that starts `biovfm` of this installation.

    Its script is run, not `python -m`, which would take a `train.py` of the working folder for ours.

    Args:
        launcher: Command in front of it; torchrun has to be told that no Python file follows.
    """
    script = str(Path(sys.executable).parent / "biovfm")
    told = Path(launcher[0]).name != "torchrun" or "--no-python" in launcher if launcher else True
    return [*launcher, *([] if told else ["--no-python"]), script]


def execute(plan: Plan, run: PlannedRun) -> None:
    """Pretrain, probe, write the result.

    Raises:
        RunFailedError: A child process failed; its log is named.
    """
    folder = plan.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    launcher = launch_words(plan.grid.launcher or [])
    trained = _child([*launcher, *pretrain_arguments(plan, run)], folder / "pretrain.log")
    if not trained.get("finished", True):
        raise RunFailedError(f"pretraining stopped at step {trained.get('steps')}", hint="start the sweep again")
    seconds = time.perf_counter() - started
    probed = _child([*launch_words([]), *probe_arguments(plan, run)], folder / "probe.log")
    document = {
        "run": asdict(run),
        "pretrain": trained,
        "pretrain_seconds": round(seconds, 1),
        "results": probed["results"],
        "missing_tasks": probed["missing_tasks"],
    }
    write_text(folder / RESULT, json_text(document, indent=2) + "\n")


def pretrain_arguments(plan: Plan, run: PlannedRun) -> list[str]:
    """What follows `biovfm` to pretrain a run."""
    lock, recipe = plan.out / run.lock, plan.out / run.recipe_file
    moved = [] if plan.dataset is None else ["--dataset", plan.dataset]
    return ["pretrain", str(lock), *moved, "--recipe", str(recipe), "--out", str(plan.folder(run)), "--json"]


def probe_arguments(plan: Plan, run: PlannedRun) -> list[str]:
    """What follows `biovfm` to probe a run."""
    chosen = {name: value for name, value in asdict(plan.grid.probe).items() if value not in (None, False)}
    words = ["probe", str(plan.folder(run)), "--json"]
    for name, value in chosen.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def collect(plan: Plan) -> Path | None:
    """Write the results of all finished runs to `results.csv`; None where none is finished.

    Array tasks may end at the same time: whoever writes looks again, so that the last to write has seen every run.
    """
    path, seen = plan.out / RESULTS, -1
    while rows := list(rows_of(plan)):
        if len(rows) == seen:
            return path
        write_csv(path, rows)
        seen = len(rows)
    return None


def _child(command: Sequence[str], log: Path) -> dict[str, Any]:
    """Run a child; its standard error goes to `log`, the JSON object on its standard output is returned.

    Where this process is killed, the child is told to stop (on Linux), so that it holds no GPU for a run that goes on
    elsewhere.
    """
    first = partial(_end_with, os.getpid()) if _ON_LINUX else None
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, preexec_fn=first)  # noqa: PLW1509, S603 - our own; it calls the kernel alone
        try:
            output, _ = process.communicate()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        raise RunFailedError(f"{log.stem} ended with {process.returncode}", hint=f"see {log}")
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise RunFailedError(f"{log.stem} gave no result", hint=f"see {log}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def _end_with(parent: int) -> None:
    """In a child, before its program begins: get SIGTERM when the parent ends."""
    assert _PRCTL is not None
    _PRCTL(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
