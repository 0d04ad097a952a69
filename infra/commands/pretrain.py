"""`biovfm pretrain`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from infra.commands._assignments import read_assignments
from infra.console import answer, emit, progress, stderr
from shards.errors import BiovfmError

if TYPE_CHECKING:
    from torch import nn

    from train.loop import Monitor
    from train.recipe import Recipe


def pretrain(
    data: str,
    /,
    *,
    dataset: str | None = None,
    accept_packing: bool = False,
    recipe: str = "tiny",
    out: Path,
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    fresh: bool = False,
    knn_task: str | None = None,
    knn_data: str | None = None,
    knn_every: int | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Pretrain a Vision Transformer by DINOv2 or MAE on a dataset or a lock; the same command again goes on.

    SIGTERM and Ctrl-C save a checkpoint and stop; the exit code is 0 after SIGTERM, 130 after Ctrl-C.

    Example: `biovfm pretrain ct-us.lock.yaml --recipe dinov2-short --set model.size=small --out runs/a`

    Several GPUs or nodes: `torchrun --nproc-per-node 8 --no-python biovfm pretrain ...`

    Parameters
    ----------
    data
        A dataset (its newest version) or a lock file.
    dataset
        Where the lock's dataset lies now; where the lock says, without it.
    accept_packing
        Train on the locked samples also where they are packed into other shards, in another order.
    recipe
        dinov2-short, dinov2-long, mae-paper, mae-default, tiny, tiny-dinov2, or a YAML file.
    out
        Folder of the run.
    set_
        A setting of the recipe, `run.steps=1000`; repeat for several.
    fresh
        Refuse to go on with a run that is already in the folder.
    knn_task
        MedMNIST task for the online k-NN (its validation split), such as breast.
    knn_data
        Folder of the MedMNIST archives; the medmnist cache, else a download, without it.
    knn_every
        Steps between measurements; only at the end without it.
    """
    from train.recipe import load_recipe

    overrides = read_assignments("--set", set_, example="run.steps=1000")
    if knn_every is not None:
        overrides["watch.monitor_every"] = knn_every
    resolved = load_recipe(recipe, overrides)
    from train.distributed import is_known_to_all
    from train.record import StepReport
    from train.run import pretrain as run

    monitor = knn_monitor(resolved, knn_task, data=knn_data) if knn_task else None
    first = os.environ.get("RANK", "0") == "0"
    if first:
        stderr().print(describe(resolved), soft_wrap=True)
    with progress(disable=json_ or not first) as bar:
        line = bar.add_task(resolved.name, total=resolved.run.steps or None, note="")

        def show(report: StepReport) -> None:
            bar.update(line, completed=report.step, total=report.steps, note=note(report.flat()))

        try:
            result = run(
                resolved,
                data=data,
                dataset=dataset,
                accept_packing=accept_packing,
                out=out,
                resume=not fresh,
                progress=show,
                monitor=monitor,
                say=notice,
            )
        except BiovfmError as error:
            if first or not is_known_to_all(error):
                raise
            return error.exit_code  # the first rank shows it
    code = 130 if result.interrupted else 0
    if not first:
        return code
    if json_:
        emit(
            {
                "steps": result.steps,
                "resumed_from": result.resumed_from,
                "finished": result.finished,
                "interrupted": result.interrupted,
                "final_loss": result.final_loss,
                "effective_lr": result.effective_lr,
                "seconds": round(result.seconds, 2),
                "out": str(out),
                "export": str(result.export) if result.export else None,
            }
        )
    elif not result.finished:
        answer(f"stopped at step {result.steps}, saved; the same command goes on")
    else:
        answer(f"done: {result.export}")
    return code


def notice(line: str) -> None:
    """Show one line of what happens before and while a run goes on."""
    stderr().print(line, soft_wrap=True, markup=False, highlight=False)


def describe(recipe: Recipe) -> str:
    """What will run, in one line, with the learning rate that follows from the batch."""
    run = recipe.run
    length = f"{run.epochs:g} epochs in batches" if run.epochs else f"{run.steps:,} steps"
    return (
        f"{recipe.name}: {recipe.method.name}, ViT-{recipe.model.size}/{recipe.model.patch_size} at "
        f"{recipe.image_size_px} px, {length} of {run.global_batch} images, "
        f"effective learning rate {recipe.effective_lr:.3g}, "
        f"{run.precision}, {run.parallel}"
    )


def note(flat: Mapping[str, Any]) -> str:
    """The end of the progress line."""
    return (
        f"loss {flat['loss']:.4f}  {flat['images_per_second']:,.0f} images/s  stall {flat['stall_share']:.1%}  "
        f"lr {flat['lr']:.2g}"
    )


def knn_monitor(recipe: Recipe, task_name: str, *, data: str | None) -> Monitor:
    """The online k-NN: AUC and ACC on the validation split of a MedMNIST task."""
    from eval.encoders.encoder import Backbone, weights_digest
    from eval.medmnist.data import load_task, task_names
    from eval.probes.features import extract
    from eval.probes.knn import predict_knn
    from eval.scoring.metrics import evaluate

    task = load_task(task_names(task_name)[0], root=data)

    def measure(model: nn.Module, *, step: int) -> dict[str, float]:
        device = str(next(model.parameters()).device)
        backbone = Backbone(
            spec=f"step {step}",
            model=model,
            digest=weights_digest(model),
            image_size_px=recipe.image_size_px,
            mean=recipe.augment.mean,
            std=recipe.augment.std,
            metadata={"recipe": recipe.model_dump(mode="json")},
        )
        with tempfile.TemporaryDirectory() as cache:
            features = extract(backbone, task, cache=Path(cache), device=device)
            scores = predict_knn(features, task, device=device).val
        return {f"knn_{task.name}_{key}": value for key, value in evaluate(task.val.labels, scores, task.kind).items()}

    return measure
