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
from infra.estimate.digits import digits
from infra.estimate.figures import Figure, Job, estimate, reading
from infra.estimate.reading import lanes_for
from infra.reports.probe import text_table
from shards.errors import ConfigError
from shards.stream.order import MAX_LANES, default_lanes
from shards.subset.lock import LARGEST_LANES

_ALL: Final = fields(Constants)
_MOST: Final = 1e15
"""Beyond any number of images or steps."""
_MOST_OF: Final = {"batch": 2**24, "ranks": LARGEST_LANES, "image_px": 2**16, "patch_px": 2**16}
_LITTLE: Final = 1.1
"""Bytes read per byte used that need no remedy."""


def plan(
    *,
    images: float = 21e6,
    model: Literal["vit-tiny", "vit-small", "vit-base", "vit-large", "vit-huge"] = "vit-base",
    method: Literal["mae", "dinov2"] = "mae",
    nodes: int = 1,
    gpus: int = 8,
    batch: int = 2048,
    ranks: int = MAX_LANES,
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
    ranks
        As in `biovfm subset create --ranks`: ranks of the largest run of the lock, where they are more than 64.
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
    _check_numbers(
        images=images,
        nodes=nodes,
        gpus=gpus,
        batch=batch,
        ranks=ranks,
        steps=steps,
        epochs=epochs,
        image_px=image_px,
        patch_px=patch_px,
        images_per_second=images_per_second,
    )
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
        most_lanes=max(ranks, MAX_LANES),
        image_px=image_px,
        patch_px=patch_px,
        images_per_second=None if speed is None else speed.value,
        measured="" if speed is None else speed.why,
    )
    _check(job)
    figures, advice = estimate(job, constants), _advice(job, constants)
    why |= {name: "given" for name, value in chosen.items() if value is not None}
    origins = {item.name: why.get(item.name, "given" if item.name in found else item.metadata["why"]) for item in _ALL}
    if json_:
        told = {"job": asdict(job), "figures": [asdict(figure) for figure in figures], "advice": advice}
        emit({**told, "constants": asdict(constants), "origins": origins})
        return
    sys.stdout.write("\n".join([_table(figures), *(f"{line}\n" for line in advice), _assumptions(constants, origins)]))


def _check_numbers(**numbers: float | None) -> None:
    """Refuse options that mean nothing; None stands for one that was left out.

    Raises:
        ConfigError: One is not positive, or beyond all runs, or images are no whole ones.
    """
    for name, value in numbers.items():
        said = f"--{name.replace('_', '-')} {value}"
        most = _MOST_OF.get(name, _MOST)
        if value is None:
            continue
        if not value > 0:
            raise ConfigError(f"{said} is not positive", hint="give a positive number")
        if value > most:
            raise ConfigError(f"{said} is more than any run has", hint=f"give at most {most:,.0f}")
        if name == "images" and not float(value).is_integer():
            raise ConfigError(f"{said} is no whole number of images", hint=f"use --images {max(round(value), 1)}")


def _steps(steps: int | None, epochs: float | None, *, images: float, batch: int) -> int:
    if steps is not None and epochs is not None:
        raise ConfigError("--steps and --epochs say the same thing", hint="give one of them")
    if epochs is None:
        return 125_000 if steps is None else steps
    needed = epochs * images / batch
    if needed > _MOST:
        raise ConfigError(f"--epochs {epochs} takes {needed:.3g} steps, more than any run has", hint="give fewer")
    return max(round(needed), 1)


def _check(job: Job) -> None:
    """Refuse numbers that do not go together.

    Raises:
        ConfigError: Images are no whole patches, a batch is not shared evenly, or a lock has no lanes for so many GPUs.
    """
    if job.image_px % job.patch_px:
        hint = f"use --image-px {-(-job.image_px // job.patch_px) * job.patch_px}"
        raise ConfigError(f"{job.image_px} px is no whole number of {job.patch_px} px patches", hint=hint)
    if job.ranks > LARGEST_LANES:
        hint = f"give at most {LARGEST_LANES:,} in all, as many as a lock has lanes for"
        raise ConfigError(f"--nodes {job.nodes} --gpus {job.gpus} are {job.ranks} GPUs", hint=hint)
    if job.batch % job.ranks:
        hint = f"use a multiple of {job.ranks}"
        raise ConfigError(f"--batch {job.batch} cannot be shared by {job.ranks} GPUs", hint=hint)


def _advice(job: Job, constants: Constants) -> list[str]:
    """A line on what to do where ranks read much of the same; none where they do not."""
    read = reading(job, constants)
    ranks = lanes_for(ranks=job.ranks, batch=job.batch)
    if not read.shared or round(read.amplification, 3) <= _LITTLE or ranks > LARGEST_LANES:
        return []
    lanes = default_lanes(job.batch, job.most_lanes)
    said = f"{job.ranks:,} ranks share {lanes:,} lanes, and read {digits(read.amplification)} bytes per byte used"
    return [f"{said}: make the lock by `biovfm subset create --ranks {ranks}`, and give --ranks {ranks} here too"]


def _table(figures: list[Figure]) -> str:
    rows = [[figure.name, digits(figure.value), figure.unit, figure.formula] for figure in figures]
    return text_table(["figure", "value", "unit", "formula"], rows)


def _assumptions(constants: Constants, origins: Mapping[str, str]) -> str:
    rows = [[name, digits(getattr(constants, name), 6), why] for name, why in origins.items()]
    return text_table(["constant", "value", "from"], rows)
