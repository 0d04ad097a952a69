"""`biovfm sweep`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from infra.commands._probing import check_writable
from infra.console import emit, stderr
from shards.errors import ConfigError

if TYPE_CHECKING:
    from infra.sweep.plan import Plan, PlannedRun


def sweep(
    grid: Path | None = None,
    /,
    *,
    dataset: str | None = None,
    out: Path = Path("sweep"),
    plan: bool = False,
    only: int | None = None,
    collect: bool = False,
    slurm: bool = False,
    submit: bool = False,
    ray: str | None = None,
    scaling: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Pretrain and probe every combination of recipe, model, data fraction and modality mix; finished ones are skipped.

    Example: `biovfm sweep grid.yaml --out sweeps/sizes && biovfm scaling sweeps/sizes/results.csv`

    Parameters
    ----------
    grid
        YAML with dataset, recipes, models, fractions, modalities, seeds, set, probe; without it, the plan in OUT.
    dataset
        Where the dataset lies now; where the grid and its locks say, without it.
    out
        Folder of the sweep: plan, locks, recipes, runs, results.csv.
    plan
        Only pin locks and recipes and print the runs.
    only
        Execute run N of the plan alone (an array task).
    collect
        Only gather the results of finished runs.
    slurm
        Write a SLURM array script instead of running.
    submit
        With --slurm: submit it.
    ray
        Run on Ray at this address (`auto`, `local`, or host:port) instead of here.
    scaling
        Afterwards analyse the results as `biovfm scaling` does, in OUT/scaling.
    """
    from infra.sweep.grid import read_grid
    from infra.sweep.launch import run_on_ray, submit_slurm, write_slurm_script
    from infra.sweep.plan import PLAN, make_plan, read_plan
    from infra.sweep.run import collect as collect_results
    from infra.sweep.run import execute, run_pending

    chosen = [name for name, on in (("--plan", plan), ("--collect", collect), ("--slurm", slurm), ("--ray", ray)) if on]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} exclude one another", hint="give one of them")
    if submit and not slurm:
        raise ConfigError("--submit belongs to --slurm", hint="add --slurm")
    if grid:
        check_writable(out / PLAN, option="--out")
    planned = make_plan(read_grid(grid), out, dataset=dataset) if grid else read_plan(out, dataset=dataset)
    failed: list[str] = []
    script: Path | None = None
    if only is not None:
        run = _nth(planned, only)
        if not planned.is_finished(run):
            execute(planned, run)
    elif slurm:
        script = write_slurm_script(planned)
        stderr().print(
            submit_slurm(script) if submit else f"submit it with: sbatch {script}", markup=False, soft_wrap=True
        )
    elif ray:
        with redirect_stdout(sys.stderr):  # Ray prints there what becomes of its nodes
            failed = run_on_ray(planned, ray, tell=_tell)
    elif not plan and not collect:
        failed = run_pending(planned, tell=_tell)
    results = collect_results(planned)
    page = _analyse(results, out / "scaling", data=planned.grid.probe.data) if scaling and results else None
    if json_:
        emit(
            {
                "runs": [run.id for run in planned.runs],
                "finished": [run.id for run in planned.runs if planned.is_finished(run)],
                "failed": failed,
                "results": str(results) if results else None,
                "script": str(script) if script else None,
                "page": str(page) if page else None,
            }
        )
    else:
        sys.stdout.write(_table(planned))
    return 1 if failed else 0


def _analyse(results: Path, out: Path, *, data: str | None) -> Path:
    from infra.reports.scaling import analyse, write_analysis

    page = write_analysis(analyse([results], data=data), out)["page"]
    stderr().print(f"page: {page}", markup=False, soft_wrap=True)
    return page


def _nth(plan: Plan, number: int) -> PlannedRun:
    if not 0 <= number < len(plan.runs):
        raise ConfigError(f"there is no run {number}", hint=f"pass --only 0 to --only {len(plan.runs) - 1}")
    return plan.runs[number]


def _tell(run: PlannedRun, what: str) -> None:
    stderr().print(f"{run.id}: {what}", markup=False, soft_wrap=True)


def _table(plan: Plan) -> str:
    from infra.reports.probe import text_table

    rows = [
        [str(number), run.id, f"{run.num_images:,}", str(run.steps), "finished" if plan.is_finished(run) else "to do"]
        for number, run in enumerate(plan.runs)
    ]
    return text_table(["", "run", "images", "steps", "state"], rows)
