"""Hand a sweep to a scheduler: a SLURM array script, or the Ray engine of ingest. The sweep's folder must be shared."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from infra.console import stderr
from infra.sweep.plan import Plan, PlannedRun
from infra.sweep.run import collect, execute
from ingest.engines.base import Supervision, Task
from ingest.engines.load import Load
from shards.errors import BiovfmError, ConfigError, RunFailedError
from shards.files import write_text

_RULES: Final = Supervision(step_timeout_seconds=math.inf, start_timeout_seconds=math.inf)
"""A run takes days and gives no signs of life on its way."""


def slurm_script(plan: Plan) -> str:
    """An sbatch script: array task i executes run i; a run that has its result ends at once.

    `biovfm` is the one that the set-up lines bring; where they bring none, the one that planned the sweep. They run
    before `set -u`, which the activation scripts of environments seldom survive.
    """
    settings = plan.grid.slurm
    limit = f"%{settings.at_once}" if settings.at_once else ""
    options = {
        "job-name": f"biovfm-{plan.out.name}",
        "array": f"0-{len(plan.runs) - 1}{limit}",
        "time": settings.time,
        "nodes": str(settings.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(settings.cpus),
        **({"gpus-per-node": str(settings.gpus)} if settings.gpus else {}),
        **({"partition": settings.partition} if settings.partition else {}),
        "output": f"{plan.out.resolve()}/slurm-%A_%a.log",
        "requeue": "",
        **settings.options,
    }
    head = [f"#SBATCH --{name}={value}" if value else f"#SBATCH --{name}" for name, value in options.items()]
    setup = [
        "set -eo pipefail",
        f'export PATH="$PATH":{shlex.quote(str(Path(sys.executable).parent))}',
        *settings.setup,
    ]
    run = f'exec biovfm sweep --out {shlex.quote(str(plan.out.resolve()))} --only "$SLURM_ARRAY_TASK_ID"'
    run += f" --dataset {shlex.quote(plan.dataset)}" if plan.dataset else ""
    return "\n".join(["#!/bin/bash", *head, *setup, "set -u", run, ""])


def write_slurm_script(plan: Plan) -> Path:
    """Write the script into the sweep's folder."""
    path = plan.out / "sweep.sbatch"
    write_text(path, slurm_script(plan))
    return path


def submit_slurm(script: Path) -> str:
    """Submit a script; returns what sbatch says.

    Raises:
        ConfigError: There is no sbatch here.
        RunFailedError: sbatch refused the script.
    """
    try:
        done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)  # noqa: S603, S607 - the cluster's own
    except FileNotFoundError as error:
        raise ConfigError(
            "there is no sbatch here", hint=f"copy {script} to the cluster and submit it there"
        ) from error
    if done.returncode != 0:
        raise RunFailedError(f"sbatch: {done.stderr.strip()}", hint=f"correct the slurm section, see {script}")
    return done.stdout.strip()


def run_on_ray(plan: Plan, address: str, *, tell: Callable[[PlannedRun, str], None]) -> list[str]:
    """Execute the pending runs on a Ray cluster and wait for them; those of a node that is lost go to another one.

    Args:
        plan: From `infra.sweep.plan`; its folder and the dataset must be reachable from every node.
        address: Of the cluster, `auto`, or `local`.
        tell: As in `infra.sweep.run.run_pending`.

    Returns:
        Ids of the runs that failed.

    Raises:
        ConfigError: This machine is too small for a run.
        EngineError: Ray is not installed, the cluster cannot be reached, or no worker starts there.
    """
    from ingest.engines.ray import RayEngine

    plan = replace(plan, out=plan.out.resolve())  # workers start in folders of their own
    wanted, pending = plan.grid.slurm, plan.pending()
    failed: list[str] = []
    if not pending:
        return failed
    load = Load(noun="run", cpus=wanted.cpus, gpus=wanted.gpus, keeps_workers=False, goes_on=True)
    engine = RayEngine(address=address, rules=_RULES, patience_seconds=math.inf, load=load, tell=_say)
    try:
        _check_room(load, alone=address == "local")
        for run in pending:
            tell(run, "submitted")
        tasks = [Task(index=number, payload=run) for number, run in enumerate(plan.runs) if run in pending]
        for event in engine.run(execute_on_node, plan, tasks):
            run, why = plan.runs[event.index], event.lost or event.result
            if why:
                failed.append(run.id)
            tell(run, f"failed: {why}" if why else "done")
            collect(plan)
    finally:
        engine.release()
    return failed


def execute_on_node(plan: Plan, run: PlannedRun, beat: Callable[[int], None], skip: Mapping[int, str]) -> str:
    """Execute a run where a worker of the engine is; why it failed, empty where it did not."""
    beat(0)
    if skip:
        return f"its process ended twice: {skip[0]}"
    try:
        if not plan.is_finished(run):  # by a worker that was lost before it could say so
            execute(plan, run)
    except BiovfmError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - whatever it is, the other runs go on
        return f"{type(error).__name__}: {error}"
    return ""


def _say(line: str) -> None:
    stderr().print(line, markup=False, soft_wrap=True)


def _check_room(load: Load, *, alone: bool) -> None:
    """Ray lets a worker that fits no node wait for ever; a cluster may grow such a node, this machine will not."""
    import ray

    if any(map(load.places, ray.nodes())):
        return
    message = f"no node has the {load.cpus} CPUs and {load.gpus} GPUs that a run asks for"
    hint = "set slurm.cpus and slurm.gpus in the grid"
    if alone:
        raise ConfigError(message, hint=hint)
    _say(f"{message}; waiting for one to join ({hint} for smaller runs)")
