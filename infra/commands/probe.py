"""`biovfm probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from infra.report_probe import find_tasks, pick_device, run_all, show
from shards.errors import ConfigError


def probe(
    *checkpoints: str,
    tasks: str = "all",
    data: str | None = None,
    size: Literal[28, 64, 128, 224] = 28,
    image_size: int | None = None,
    pooling: Literal["auto", "patch_mean", "cls", "cls_patch_mean"] = "auto",
    seeds: int = 1,
    shots: int | None = None,
    skip_missing: bool = False,
    paper_protocol: bool = False,
    train_mode_backbone: bool = False,
    epochs: int = 100,
    resamples: int = 1000,
    batch_size: int = 256,
    device: str = "auto",
    cache: Path | None = None,
    out: Path | None = None,
    page: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Linear probes of frozen backbones on MedMNIST, with intervals; several models are compared pair by pair.

    Example: `biovfm probe runs/demo random:runs/demo --tasks breast,retina --data ~/medmnist --out results.jsonl`

    Parameters
    ----------
    checkpoints
        Run folders, exports, timm names, ARCHITECTURE@FILE.safetensors, Hugging Face folders, random:…, or pixels.
    tasks
        `all`, or names separated by commas.
    data
        Folder, .npz or URL of the archives; the medmnist cache, else a download, without it.
    size
        Edge of the archive's images in pixels.
    image_size
        Edge that the network sees; the one that it was trained on without it.
    pooling
        Mean of the patch tokens, the CLS token, or both.
    seeds
        Repetitions; they matter for random weights, --shots and --paper-protocol only.
    shots
        Fit on that many training images a class.
    skip_missing
        Name tasks whose images are missing and go on without them.
    paper_protocol
        BioVFM's own probe: BatchNorm and a linear head by AdamW on augmented images, 100 epochs. Slow.
    train_mode_backbone
        With --paper-protocol: leave the frozen backbone in train mode, as the authors' code does, so that
        stochastic depth stays on while the head trains. Off, because it makes DINOv2 and MAE incomparable.
    epochs
        With --paper-protocol: epochs.
    resamples
        Bootstrap resamples.
    batch_size
        Images a forward pass.
    device
        auto, cpu or cuda.
    cache
        Folder of cached features; ~/.cache/biovfm/features without it.
    out
        JSON lines to append results to.
    page
        HTML page to write.
    """
    from eval.features import Report
    from eval.medmnist import Task
    from eval.paper import probe_paper
    from eval.probe import ProbeResult
    from eval.probe import probe as probe_linear

    if not checkpoints:
        raise ConfigError("no checkpoint given", hint="biovfm probe runs/demo --tasks breast")
    if paper_protocol and shots is not None:
        raise ConfigError("--paper-protocol fits on all training images", hint="leave out --shots")
    if train_mode_backbone and not paper_protocol:
        raise ConfigError("--train-mode-backbone belongs to --paper-protocol")
    found, missing = find_tasks(tasks, data=data, size=size, skip_missing=skip_missing)
    where = pick_device(device)

    def classify(checkpoint: str, task: Task, report: Report) -> list[ProbeResult]:
        if paper_protocol:
            return probe_paper(
                checkpoint,
                [task],
                seeds=range(seeds),
                num_epochs=epochs,
                image_size_px=image_size,
                train_mode_backbone=train_mode_backbone,
                device=where,
                cache=cache,
                num_resamples=resamples,
                report=report,
            )
        return probe_linear(
            checkpoint,
            [task],
            seeds=range(seeds),
            shots=shots,
            pooling=pooling,
            image_size_px=image_size,
            cache=cache,
            batch_size=batch_size,
            device=where,
            num_resamples=resamples,
            report=report,
        )

    results = run_all(checkpoints, found, classify, out=out, quiet=json_)
    show(results, missing=missing, page=page, out=out, json_=json_)
