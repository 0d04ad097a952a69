"""`biovfm knn`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from infra.report_probe import find_tasks, pick_device, run_all, show
from shards.errors import ConfigError


def knn(
    *checkpoints: str,
    tasks: str = "all",
    data: str | None = None,
    size: Literal[28, 64, 128, 224] = 28,
    image_size: int | None = None,
    pooling: Literal["auto", "patch_mean", "cls", "cls_patch_mean"] = "auto",
    k: tuple[int, ...] = (5, 10, 20, 50, 100, 200),
    temperature: float = 0.07,
    skip_missing: bool = False,
    resamples: int = 1000,
    batch_size: int = 256,
    device: str = "auto",
    cache: Path | None = None,
    out: Path | None = None,
    page: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Classify MedMNIST by the k nearest neighbours of frozen features; k is chosen on the validation split.

    Example: `biovfm knn runs/demo --tasks breast --data ~/medmnist`

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
    k
        Numbers of neighbours to choose from; repeat for several.
    temperature
        Of the softmax over similarities.
    skip_missing
        Name tasks whose images are missing and go on without them.
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
    from eval.features import FeatureSet, Report
    from eval.knn import predict_knn
    from eval.medmnist import Task
    from eval.probe import Prediction, ProbeResult, run

    if not checkpoints:
        raise ConfigError("no checkpoint given", hint="biovfm knn runs/demo --tasks breast")
    if not k or min(k) < 1:
        raise ConfigError(f"--k {k} must be one or more positive numbers")
    found, missing = find_tasks(tasks, data=data, size=size, skip_missing=skip_missing)
    where = pick_device(device)

    def predict(features: FeatureSet, task: Task, _seed: int) -> Prediction:
        return predict_knn(features, task, ks=k, temperature=temperature, device=where)

    def classify(checkpoint: str, task: Task, report: Report) -> list[ProbeResult]:
        return run(
            predict,
            checkpoint,
            [task],
            protocol="knn",
            options={"ks": list(k), "temperature": temperature},
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
