"""`biovfm plan`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter

from infra.console import emit
from infra.estimate.benchmark import Known, is_benchmark, read_benchmark
from infra.estimate.constants import Constants, read_constants, read_measured
from infra.estimate.figures import Figure, Job, estimate
from infra.reports.probe import text_table
from shards.errors import ConfigError

_ALL: Final = fields(Constants)
_MOST: Final = 1e15
"""Beyond any number of images or steps."""


def plan(
    *,
    images: float = 21e6,
    model: Literal["vit-tiny", "vit-small", "vit-base", "vit-large", "vit-huge"] = "vit-base",
    method: Literal["mae", "dinov2"] = "mae",
    nodes: int = 1,
    gpus: int = 8,
    batch: int = 2048,
    steps: int | None = None,
    epochs: float | None = None,
    image_bytes: float | None = None,
    image_px: int = 224,
    patch_px: int = 16,
    images_per_second: float | None = None,
    utilisation: float | None = None,
    gpu_hour_price: float | None = None,
    measured: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Say what a pretraining run will need and cost, each figure with its formula; nothing is read or started.

    Example: `biovfm plan --images 21e6 --model vit-base --method mae --nodes 8 --gpus 8`

    Parameters
    ----------
    images
        Images of the dataset.
    model
        Size of the network.
    method
        mae or dinov2.
    nodes
        Machines.
    gpus
        GPUs of each machine.
    batch
        Global batch.
    steps
        Optimiser steps: 125,000 (the paper's) where neither they nor --epochs are given.
    epochs
        Passes over the images instead of steps.
    image_bytes
        Compressed bytes per image; `biovfm stats` shows a dataset's own.
    image_px
        Edge of the (global) crops in pixels.
    patch_px
        Edge of a patch in pixels.
    images_per_second
        Of one GPU, where you have measured it.
    utilisation
        Share of the GPU's peak that training reaches, where you have not.
    gpu_hour_price
        Price of a GPU-hour.
    measured
        JSON of a GPU's rates (`biovfm doctor --bench --json`), or of constants; a checkout of the project measures
        some of this machine (`python -m infra.bench.calibrate`).
    """
    size = model.removeprefix("vit-")
    found = read_measured(measured)
    why: dict[str, str] = {}
    speed = None if images_per_second is None else Known(images_per_second, "measured")
    if measured is not None and is_benchmark(found):
        benchmark = read_benchmark(found, measured)
        known = benchmark.peak()
        if speed is None and utilisation is None:
            speed = benchmark.speed(method, size, image_px=image_px, patch_px=patch_px)
            known |= {} if speed else benchmark.utilisation(method, size, image_px=image_px)
        found, why = {name: one.value for name, one in known.items()}, {name: one.why for name, one in known.items()}
    chosen = {"image_bytes": image_bytes, "utilisation": utilisation, "gpu_hour_price": gpu_hour_price}
    constants = read_constants(measured, found, **chosen)
    job = Job(
        images=images,
        method=method,
        size=size,
        nodes=nodes,
        gpus=gpus,
        batch=batch,
        steps=_steps(steps, epochs, images=images, batch=batch),
        image_px=image_px,
        patch_px=patch_px,
        images_per_second=None if speed is None else speed.value,
        measured="" if speed is None else speed.why,
    )
    _check(job)
    figures = estimate(job, constants)
    why |= {name: "given" for name, value in chosen.items() if value is not None}
    origins = {item.name: why.get(item.name, "given" if item.name in found else item.metadata["why"]) for item in _ALL}
    if json_:
        told = {"job": asdict(job), "figures": [asdict(figure) for figure in figures]}
        emit({**told, "constants": asdict(constants), "origins": origins})
        return
    sys.stdout.write(_table(figures) + "\n" + _assumptions(constants, origins))


def _steps(steps: int | None, epochs: float | None, *, images: float, batch: int) -> int:
    if steps is not None and epochs is not None:
        raise ConfigError("--steps and --epochs say the same thing", hint="give one of them")
    if epochs is None:
        return 125_000 if steps is None else steps
    _check_positive("epochs", epochs)
    if batch < 1 or not images > 0:
        return 1  # those are named
    return max(round(min(epochs * images / batch, 2 * _MOST)), 1)


def _check_positive(name: str, value: float) -> None:
    option = f"--{name.replace('_', '-')}"
    if not value > 0:
        raise ConfigError(f"{option} {value} is not positive", hint="biovfm plan --help")
    if value > _MOST:
        raise ConfigError(f"{option} {value} is more than any run has", hint=f"give at most {_MOST:g}")


def _check(job: Job) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        ConfigError: One is not positive, or images are no whole patches.
    """
    numbers = ("images", "nodes", "gpus", "batch", "steps", "image_px", "patch_px", "images_per_second")
    for name in numbers:
        value = getattr(job, name)
        if value is not None:
            _check_positive(name, value)
    if job.image_px % job.patch_px:
        hint = f"use --image-px {-(-job.image_px // job.patch_px) * job.patch_px}"
        raise ConfigError(f"{job.image_px} px is no whole number of {job.patch_px} px patches", hint=hint)
    if job.batch % (job.nodes * job.gpus):
        hint = f"use a multiple of {job.nodes * job.gpus}"
        raise ConfigError(f"--batch {job.batch} cannot be shared by {job.nodes * job.gpus} GPUs", hint=hint)


def _table(figures: list[Figure]) -> str:
    rows = [[figure.name, _plain(figure.value), figure.unit, figure.formula] for figure in figures]
    return text_table(["figure", "value", "unit", "formula"], rows)


def _plain(value: float) -> str:
    """As people write it: thousands whole, small numbers with three digits that count."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _assumptions(constants: Constants, origins: Mapping[str, str]) -> str:
    rows = [[name, f"{getattr(constants, name):g}", why] for name, why in origins.items()]
    return text_table(["constant", "value", "from"], rows)
