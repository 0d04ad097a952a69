"""`biovfm stream`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from infra.commands._operating import DEFAULTS, Operating, Pulse, operated
from infra.console import answer, emit, log_as, log_event, log_step, progress
from shards.errors import ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from infra.metrics.streaming import StreamFigures


def stream(
    dataset_or_lock: str,
    /,
    *,
    dataset: str | None = None,
    accept_packing: bool = False,
    keys: bool = False,
    bench: bool = False,
    epoch: int = 0,
    seed: int = 0,
    global_batch: int = 256,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    num_batches: int | None = None,
    size: int = 224,
    workload: Literal["random", "center", "raw", "dinov2"] = "random",
    mode: Literal["fast", "exact"] = "fast",
    threads: int | None = None,
    last: Literal["drop", "pad"] = "drop",
    mix: Literal["modality", "source"] | None = None,
    temperature: float = 1.0,
    weight: tuple[str, ...] = (),
    cache: Path | None = None,
    operating: Operating = DEFAULTS,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Stream one epoch of a dataset or a lock: look at its order, or measure its speed.

    Example: `biovfm stream ct.lock.yaml --keys --epoch 0 --seed 0 --global-batch 256 --rank 0 --world-size 4`

    Parameters
    ----------
    dataset_or_lock
        A dataset (its newest version) or a lock file.
    dataset
        Where the lock's dataset lies now; where the lock says, without it.
    accept_packing
        Stream the locked samples also where they are packed into other shards, in another order.
    keys
        Print the keys of each batch, one JSON list a line, and read no image.
    bench
        Measure: images/s, CPU seconds per 1000 images, first batch, memory, stall share.
    epoch
        The epoch, from 0.
    seed
        Seed of order, crops and flips.
    global_batch
        Samples of a batch over all ranks.
    rank
        The rank to be.
    world_size
        Ranks; must divide the global batch.
    start_batch
        Global batch to start at.
    num_batches
        Stop after so many batches; to the end of the epoch without it.
    size
        Side of the crops in pixels.
    workload
        What to cut from each image: one random crop, the centre, nothing (raw bytes), or DINOv2's 2 + 8 crops.
    mode
        `fast` decodes at a reduced size where that is enough, `exact` in full.
    threads
        Worker threads; the number of cores without it.
    last
        What becomes of the samples that fill no batch.
    mix
        Mix by weight over these groups.
    temperature
        Flattens the weights of `--mix`; 1 leaves them.
    weight
        A weight of `--mix`, `CT=2`; repeat for every group. Without weights a group weighs its samples.
    cache
        Folder that keeps blocks of remote shards for the next run.
    """
    run = Path(dataset_or_lock).name
    log_as(operating.log_format, run=run, rank=rank)
    from infra.measure import Meter
    from shards.stream.stream import Stream

    if keys and bench:
        raise ConfigError("--keys reads no image, --bench measures reading", hint="give one of them")
    if num_batches is not None and num_batches < 1:
        raise ConfigError(
            f"--num-batches {num_batches} streams nothing", hint="give 1 or more; without it the epoch is streamed"
        )
    source = Stream(
        dataset_or_lock,
        dataset=dataset,
        accept_packing=accept_packing,
        crops=crops_of(workload, size),
        global_batch=global_batch,
        seed=seed,
        rank=rank,
        world_size=world_size,
        epoch=epoch,
        batch=start_batch,
        num_threads=threads,
        mode=mode,
        last=last,
        mixture=mixture_of(mix, temperature, weight),
        cache=cache,
        num_epochs=epoch + 1,
    )
    stop = min(start_batch + (sys.maxsize if num_batches is None else num_batches), source.batches_per_epoch)
    if keys:
        for _, index, names in source.walk_keys():
            sys.stdout.write(json.dumps(names) + "\n")
            if index + 1 == stop:
                return
    meter = Meter()
    with operated(operating, partial(_figures, run=run, rank=rank)) as figures, progress(disable=json_) as bar:
        if figures is not None:
            figures.follow(source.stats)
        task = bar.add_task("streaming", total=stop - start_batch, note="")
        pulse = Pulse()
        for batch in source:
            meter.batch(len(batch.keys))
            log_step(batch.index)
            if pulse.is_due():
                log_event("batch", step=batch.index, images=meter.images, images_per_second=meter.images_per_second)
            bar.update(task, advance=1, note=meter.rate)
            if batch.index + 1 == stop:
                break
    _report(source, meter, bench=bench, json_=json_)


def _figures(registry: CollectorRegistry, _file: Path | None, *, run: str, rank: int) -> StreamFigures:
    from infra.metrics.streaming import StreamFigures

    return StreamFigures(registry, run=run, rank=rank)


def mixture_of(by: str | None, temperature: float, weights: Sequence[str]) -> Any:
    """The mixture that the options ask for, None for none."""
    from shards.settings import parse
    from shards.stream.mixing import Mixture

    if by is None:
        if weights:
            raise ConfigError("--weight needs --mix", hint="add `--mix modality` or `--mix source`")
        return None
    pairs = [text.partition("=") for text in weights]
    asked = {"by": by, "temperature": temperature, "weights": {name: value for name, _, value in pairs}}
    return parse(Mixture, asked, where="stream --mix")


def crops_of(workload: str, size: int) -> tuple[Any, ...]:
    """The groups of crops of a workload."""
    from shards.decode import Crops

    if workload == "raw":
        return ()
    if workload == "center":
        return (Crops(size_px=size, kind="center", flip_probability=0),)
    if workload == "dinov2":
        small = round(size * 96 / 224)
        return (
            Crops(num=2, size_px=size, scale=(0.32, 1), interpolation="bicubic"),
            Crops(num=8, size_px=small, scale=(0.05, 0.32), interpolation="bicubic"),
        )
    return (Crops(size_px=size),)


def _report(source: Any, meter: Any, *, bench: bool, json_: bool) -> None:
    stats = source.stats()
    result = {
        **meter.result(),
        "stall_share": round(stats.stall_share, 4),
        "bytes_read": stats.bytes_read,
        "retries": stats.retries,
        "read_seconds": round(stats.read_seconds, 3),
        "decode_seconds": round(stats.decode_seconds, 3),
        "blocked_seconds": round(stats.blocked_seconds, 3),
        "num_bad": stats.num_bad,
        "bad_samples": [f"{bad.key} in {bad.shard} at {bad.offset}: {bad.reason}" for bad in stats.bad_samples],
        "digest": source.digest,
        "digests": source.digests.as_dict(),
    }
    if json_:
        emit(result)
        return
    shown = list(result) if bench else ["images", "seconds", "images_per_second", "num_bad"]
    for name in shown:
        if name != "bad_samples":
            value = "not measured in one batch" if result[name] is None else result[name]
            answer(f"{name.replace('_', ' '):>28}  {value}")
    for line in result["bad_samples"]:
        answer(f"bad: {line}")
