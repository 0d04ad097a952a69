"""`biovfm pretrain`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from infra.commands._assignments import read_assignments
from infra.commands._operating import DEFAULTS, Operating, Pulse, operated, rank_of
from infra.console import answer, emit, log_as, log_event, log_step, progress, stderr
from shards.errors import BiovfmError, ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from torch import nn

    from infra.metrics.streaming import StreamFigures
    from infra.metrics.training import TrainingFigures
    from train.data import ImageStream
    from train.loop import Monitor
    from train.recipe import Recipe
    from train.remote_folder import RemoteFolder
    from train.run import OpenStream


def pretrain(
    data: str,
    /,
    *,
    dataset: str | None = None,
    accept_packing: bool = False,
    recipe: str = "tiny",
    out: str,
    set_: Annotated[tuple[str, ...], Parameter(name="--set")] = (),
    fresh: bool = False,
    knn_task: str | None = None,
    knn_data: str | None = None,
    knn_every: int | None = None,
    cache: Path | None = None,
    cache_gib: float = 64.0,
    operating: Operating = DEFAULTS,
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
        Folder of the run, or a URL (s3://...): then nodes need no shared file system, and work in ~/.cache/biovfm/runs.
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
    cache
        Folder on a disk of this host for what is read from object storage; its processes share it, and the next epoch
        reads from it. In memory without it.
    cache_gib
        Most GiB of the cache.
    """
    log_as(operating.log_format, run=Path(out).name)
    first = rank_of() == 0
    log_as(operating.log_format, rank=rank_of())
    from train.recipe_files import load_recipe

    overrides = read_assignments("--set", set_, example="run.steps=1000")
    if knn_every is not None:
        overrides["watch.monitor_every"] = knn_every
    if cache_gib <= 0:
        raise ConfigError(f"--cache-gib {cache_gib:g} is not positive", hint="give the GiB that the cache may take")
    home = _home(out)
    if home is not None:
        overrides.setdefault("checkpoint.url", home.checkpoints)
    resolved = load_recipe(recipe, overrides)
    from train.distributed import is_known_to_all
    from train.record import StepReport
    from train.run import pretrain as run

    monitor = knn_monitor(resolved, knn_task, data=knn_data) if knn_task else None
    with (
        operated(operating, partial(_figures, recipe=resolved, run=Path(out).name)) as figures,
        progress(disable=json_ or not first) as bar,
    ):
        if first:
            notice(describe(resolved))
        line = bar.add_task(resolved.name, total=resolved.run.steps or None, note="")
        training, streaming = figures or (None, None)
        pulse = Pulse()

        def begin(step: int, steps: int) -> None:
            log_step(step)
            if training is not None:
                training.start(step=step, steps=steps)

        def show(report: StepReport) -> None:
            bar.update(line, completed=report.step, total=report.steps, note=note(report.flat()))
            log_step(report.step)
            if training is not None:
                training.step(report)
            if pulse.is_due() or report.step == report.steps:
                log_event("step", **report.flat())

        try:
            result = run(
                resolved,
                data=data,
                dataset=dataset,
                accept_packing=accept_packing,
                out=Path(out) if home is None else home.local,
                home=home,
                resume=not fresh,
                start=begin,
                progress=show,
                monitor=monitor,
                say=notice,
                stream=_opener(
                    streaming,
                    dataset=dataset,
                    accept_packing=accept_packing,
                    cache=cache,
                    cache_bytes=None if cache is None else int(cache_gib * 2**30),
                ),
            )
        except BiovfmError as error:
            if first or not is_known_to_all(error):
                raise
            return error.exit_code  # the first rank shows it
    code = 130 if result.interrupted else 0
    exported = None if result.export is None else str(result.export) if home is None else f"{out}/export"
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
                "out": out,
                "export": exported,
            }
        )
    elif not result.finished:
        answer(f"stopped at step {result.steps}, saved; the same command goes on")
    else:
        answer(f"done: {exported}")
    return code


def _home(out: str) -> RemoteFolder | None:
    """The run's folder where it is a URL."""
    from train.remote_folder import RemoteFolder, is_remote

    return RemoteFolder(out) if is_remote(out) else None


def _figures(
    registry: CollectorRegistry, _file: Path | None, *, recipe: Recipe, run: str
) -> tuple[TrainingFigures | None, StreamFigures]:
    """Those of the run, which the first rank has, and those of this rank's stream."""
    from infra.metrics.streaming import StreamFigures
    from infra.metrics.training import TrainingFigures

    batch, rank = recipe.run.global_batch, rank_of()
    training = TrainingFigures(registry, run=run, global_batch=batch) if rank == 0 else None
    return training, StreamFigures(registry, run=run, rank=rank)


def _opener(
    figures: StreamFigures | None,
    *,
    dataset: str | None,
    accept_packing: bool,
    cache: Path | None,
    cache_bytes: int | None,
) -> OpenStream:
    """Opens the project's stream, and lets the figures follow it."""
    from shards.stream.stream import Stream
    from train.data import open_stream

    def opened(recipe: Recipe, data: str, rank: int, world_size: int) -> ImageStream:
        stream = open_stream(
            recipe,
            data,
            rank=rank,
            world_size=world_size,
            dataset=dataset,
            accept_packing=accept_packing,
            cache=cache,
            cache_bytes=cache_bytes,
        )
        if figures is not None and isinstance(stream, Stream):
            figures.follow(stream.stats)
        return stream

    return opened


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
