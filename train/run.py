"""Pretrain a backbone by a recipe: the whole run, from the data to the exported folder.

out/recipe.yaml             the resolved recipe
out/recipes/from-<step>.yaml  the recipe of each part of the run: a resumed run may change settings
out/metrics.jsonl           one JSON object a step
out/tensorboard/            the same for TensorBoard
out/checkpoints/step-<n>/   see train.checkpoint
out/export/                 the backbone for timm
out/reconstructions.*       MAE: masked input, reconstruction, original of a few images
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

from shards.decode.kernels.choice import KernelName
from shards.errors import ConfigError
from shards.store import LocalStore, Store, open_store
from train.checkpoint import (
    Checkpoint,
    Checkpoints,
    Lease,
    check_resumable,
    check_samples,
    code_version,
    hold_folder,
    setting_changes,
)
from train.choice import choose_compile, choose_decode, choose_kernels
from train.data import ImageStream, open_stream
from train.distributed import (
    World,
    check_batch,
    check_same_data,
    check_same_recipe,
    distribute,
    join_world,
    on_first_rank,
)
from train.export import timm_model, whole_weights, write_export
from train.loop import Loop, Monitor, StopFlag, stop_on_signals
from train.methods import build_method
from train.optim import build_optimizer
from train.output import write_file, writing
from train.pictures import save_reconstructions
from train.recipe import Recipe
from train.recipe_files import load_recipe
from train.record import Recorder, StepReport
from train.remote_folder import RemoteFolder
from train.usage import check_usage

__all__ = ["Monitor", "PretrainResult", "Recipe", "StepReport", "load_recipe", "pretrain"]

OpenStream = Callable[[Recipe, str, int, int], ImageStream]


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainResult:
    """How a run ended.

    Attributes:
        steps: Steps done, earlier attempts included.
        resumed_from: The step it went on from; 0 for a fresh start.
        finished: False where SIGTERM or Ctrl-C stopped it; the same call goes on.
        interrupted: Ctrl-C stopped it.
        final_loss: Of the last step of this attempt; None where there was nothing left to do.
        effective_lr: Peak learning rate.
        seconds: Of this attempt.
        out: The run's folder.
        export: The exported backbone; None unless finished.
    """

    steps: int
    resumed_from: int
    finished: bool
    interrupted: bool
    final_loss: float | None
    effective_lr: float
    seconds: float
    out: Path
    export: Path | None


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def pretrain(
    recipe: Recipe,
    *,
    data: str,
    out: Path,
    resume: bool = True,
    start: Callable[[int, int], None] | None = None,
    progress: Callable[[StepReport], None] | None = None,
    monitor: Monitor | None = None,
    stream: OpenStream | None = None,
    say: Callable[[str], None] = _to_stderr,
    dataset: str | None = None,
    accept_packing: bool = False,
    home: RemoteFolder | None = None,
) -> PretrainResult:
    """Run a recipe, or go on with it.

    Under torchrun every rank calls this; alone it uses one device. Going on gives the numbers of an unbroken run: bit
    for bit on one CPU process, and the same samples on any number of ranks.

    Args:
        recipe: From `load_recipe`.
        data: URL of a dataset or path of a lock.
        out: Folder of the run.
        resume: Go on from the newest checkpoint in `out`.
        start: Called on the first rank before the first step, with the steps done and those of the run.
        progress: Called on the first rank after every step.
        monitor: Called on the first rank every `watch.monitor_every` steps and at the end.
        stream: Opens the data, `(recipe, data, rank, world size)`; the project's stream by default.
        say: Takes one line for the user: a damaged checkpoint, a changed setting, a folder that is taken over.
        dataset: Where the lock's dataset lies now; where the lock says, without it.
        accept_packing: Whether the same samples will do where they are packed into other shards, in another order.
        home: Where the run's folder lies, if on object storage; `out` is its local folder, `checkpoint.url` in it.

    Raises:
        SubsetError: Ranks see different data, or the lock does not match its dataset.
        ConfigError: Ranks have other recipes, or the batch does not divide over them, or a setting has no effect, or
            not every rank has the kernels that `BIOVFM_KERNELS` asks for, or the compiler that `run.compile: true`
            needs, or `out` holds a run that is not to be resumed.
        CheckpointError: `out` holds another model's checkpoint, or one that saw other samples, or no whole one; or
            another process writes into it; or a checkpoint could not be written.
        StoreError: `out` cannot be written.
        TrainingError: The run diverged or collapsed.
    """
    began = time.perf_counter()
    with ExitStack() as stack:
        world = stack.enter_context(join_world())
        check_same_recipe(world, recipe)
        check_usage(recipe)
        check_batch(recipe, world.size)
        compiles, uncompiled = choose_compile(recipe, world)
        leases = _hold(recipe, world, stack, out, say)
        beside = home.keep_metrics if home is not None else None
        checkpoints = Checkpoints(out / "checkpoints", recipe.checkpoint, rank=world.rank, say=say, beside=beside)
        stack.callback(checkpoints.wait)  # whatever ends the run, a write in progress is finished
        found = _find(checkpoints, recipe, resume=resume)
        recipe, line = choose_decode(recipe, found.recipe if found else None, device=world.device)
        kernels, reason = choose_kernels(world)
        for said in (line, reason, uncompiled) if world.is_first else ():
            if said:
                say(said)
        open_batches = stream or _project_stream(dataset, accept_packing=accept_packing)
        batches = open_batches(recipe, data, world.rank, world.size)
        stack.callback(batches.close)
        check_same_data(world, batches.digests, data=data, code_version=code_version())
        if found is not None:
            lines = check_samples(found, batches.digests, data=data, dataset=dataset, accept_packing=accept_packing)
            for line in lines if world.is_first else ():
                say(line)
        recipe = recipe.in_steps(batches.num_samples)
        if world.is_first:
            if start is not None:
                start(found.step if found else 0, recipe.run.steps)
            say(_length(recipe, batches.num_samples))
        loop = _assemble(recipe, world, batches, checkpoints, found, kernels=kernels, compiles=compiles)
        loop.leases = leases
        stop = stack.enter_context(stop_on_signals())
        if world.is_first:
            _keep_recipe(out, recipe, found, say)
            if home is not None and found is not None:
                home.fetch_metrics()
        report = _train(loop, stack, out, stop, progress=progress, monitor=monitor)
        if loop.num_decoded_on_host and world.is_first:
            say(f"{loop.num_decoded_on_host:,} images of the first rank were decoded on the host (PNG, CMYK)")
        finished = loop.step >= recipe.run.steps
        export = _finish(loop, out, data) if finished else None
        if finished and home is not None:
            on_first_rank(world, home.finish)
    return PretrainResult(
        steps=loop.step,
        resumed_from=found.step if found else 0,
        finished=finished,
        interrupted=stop.interrupted and not finished,
        final_loss=report.loss if report else None,
        effective_lr=recipe.effective_lr,
        seconds=time.perf_counter() - began,
        out=out,
        export=export,
    )


def _hold(recipe: Recipe, world: World, stack: ExitStack, out: Path, say: Callable[[str], None]) -> Sequence[Lease]:
    """Let no other process write into the run's folder and its mirror while this one does."""
    stores: list[Store] = [LocalStore(out)] + ([open_store(recipe.checkpoint.url)] if recipe.checkpoint.url else [])
    leases: list[Lease] = []
    on_first_rank(world, lambda: leases.extend(stack.enter_context(hold_folder(stores, say=say))))
    return leases


def _keep_recipe(out: Path, recipe: Recipe, found: Checkpoint | None, say: Callable[[str], None]) -> None:
    """Write the recipe of this part of the run; say which settings are others than in the part before."""
    changes = setting_changes(found.recipe, recipe.model_dump(mode="json")) if found is not None else []
    for change in changes:
        say(f"changed from step {found.step if found else 0} on: {change}")
    parts = out / "recipes"
    if found is not None and not parts.is_dir():
        before = yaml.safe_dump(dict(found.recipe), sort_keys=False)
        write_file(parts / _part_name(0), before)
    if found is None or changes:
        write_file(parts / _part_name(found.step if found else 0), recipe.to_yaml())
    write_file(out / "recipe.yaml", recipe.to_yaml())


def _part_name(step: int) -> str:
    return f"from-{step:08d}.yaml"


def _length(recipe: Recipe, num_samples: int) -> str:
    run = recipe.run
    return (
        f"{run.steps:,} steps of {run.global_batch} images are {run.steps * run.global_batch / num_samples:.4g} epochs "
        f"of {num_samples:,} images; effective learning rate {recipe.effective_lr:.3g}"
    )


def _project_stream(dataset: str | None, *, accept_packing: bool) -> OpenStream:
    def opened(recipe: Recipe, data: str, rank: int, world_size: int) -> ImageStream:
        return open_stream(
            recipe, data, rank=rank, world_size=world_size, dataset=dataset, accept_packing=accept_packing
        )

    return opened


def _find(checkpoints: Checkpoints, recipe: Recipe, *, resume: bool) -> Checkpoint | None:
    found = checkpoints.latest()
    if found is None:
        return None
    if not resume:
        raise ConfigError(
            f"{checkpoints.folder} holds checkpoints up to step {found.step}",
            hint="choose another output folder, or leave resume on to go on with that run",
        )
    check_resumable(found, recipe, where=checkpoints.folder)
    return found


def _assemble(
    recipe: Recipe,
    world: World,
    batches: ImageStream,
    checkpoints: Checkpoints,
    found: Checkpoint | None,
    *,
    kernels: KernelName,
    compiles: bool,
) -> Loop:
    method = build_method(recipe)
    network = distribute(method, recipe, world, kernels=kernels, compiles=compiles)
    optimizer = build_optimizer(method.network, method.multipliers, recipe.optim)
    if found is not None:
        checkpoints.load(found.step, method, optimizer)
        batches.load_state_dict(dict(found.stream))
    return Loop(
        recipe=recipe,
        world=world,
        method=method,
        network=network,
        optimizer=optimizer,
        stream=batches,
        checkpoints=checkpoints,
        step=found.step if found else 0,
    )


def _train(
    loop: Loop,
    stack: ExitStack,
    out: Path,
    stop: StopFlag,
    *,
    progress: Callable[[StepReport], None] | None,
    monitor: Monitor | None,
) -> StepReport | None:
    recorder = None
    if loop.world.is_first:
        recorder = Recorder(out, loop.recipe, start=loop.step)
        stack.callback(recorder.close)

    def measure(step: int) -> Mapping[str, float]:
        if monitor is None:
            return {}
        weights = whole_weights(loop.method)
        if not loop.world.is_first:
            return {}
        return monitor(timm_model(weights, loop.recipe).to(loop.world.device).eval(), step=step)

    return loop.run(recorder, stop=stop, progress=progress, monitor=measure)


def _finish(loop: Loop, out: Path, data: str) -> Path:
    """Export the backbone and, where the method can, draw pictures."""
    weights = whole_weights(loop.method)
    pictures = loop.method.pictures(loop.network, loop.last_inputs) if loop.last_inputs is not None else None
    if loop.world.is_first:
        write_export(weights, loop.recipe, out / "export", step=loop.step, dataset=data)
        if pictures is not None:
            with writing(out):
                save_reconstructions(pictures, loop.recipe.augment, out)
    return out / "export"
