"""Hand a sweep to a scheduler: a SLURM array script, or one Ray task a run. The sweep's folder must be shared."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from infra.console import stderr
from infra.sweep.grid import SlurmSettings
from infra.sweep.plan import Plan, PlannedRun
from infra.sweep.run import collect, execute
from shards.errors import ConfigError, EngineError, RunFailedError
from shards.files import write_text


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
    """Execute the pending runs as Ray tasks and wait for them.

    Args:
        plan: From `infra.sweep.plan`; its folder and the dataset must be reachable from every node.
        address: Of the cluster, `auto`, or `local`.
        tell: As in `infra.sweep.run.run_pending`.

    Returns:
        Ids of the runs that failed.

    Raises:
        ConfigError: Ray is not installed, or this machine is too small for a run.
        EngineError: The cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed", hint="pip install 'biovfm[ray]'") from error
    alone = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, **alone)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise EngineError(f"no Ray cluster at {address}: {error}", hint="check --ray") from error
    _check_room(ray, plan.grid.slurm, alone=bool(alone))
    resources: Any = {"num_cpus": plan.grid.slurm.cpus, "num_gpus": plan.grid.slurm.gpus}
    remote = ray.remote(**resources)(execute)
    plan = replace(plan, out=plan.out.resolve())  # tasks start in folders of their own
    waiting = {remote.remote(plan, run): run for run in plan.pending()}
    for run in waiting.values():
        tell(run, "submitted")
    failed = []
    while waiting:
        ready, _ = ray.wait(list(waiting))
        run = waiting.pop(ready[0])
        try:
            ray.get(ready[0])
        except ray.exceptions.RayError as error:
            failed.append(run.id)
            tell(run, f"failed: {str(error).strip().splitlines()[-1]}")
        else:
            tell(run, "done")
        collect(plan)
    return failed


def _check_room(ray: Any, wanted: SlurmSettings, *, alone: bool) -> None:
    """Ray lets a task that fits no node wait for ever; a cluster may grow such a node, this machine will not."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= wanted.cpus and node.get("GPU", 0) >= wanted.gpus for node in nodes):
        return
    message = f"no node has the {wanted.cpus} CPUs and {wanted.gpus} GPUs that a run asks for"
    hint = "set slurm.cpus and slurm.gpus in the grid"
    if alone:
        raise ConfigError(message, hint=hint)
    stderr().print(f"{message}; waiting for one to join ({hint} for smaller runs)", soft_wrap=True)
