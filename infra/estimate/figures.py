"""From the size of a run to what it needs: one figure after the other, each with the formula that made it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from infra.estimate.constants import Constants
from infra.estimate.operations import Method, operations, output_megapixels
from shards.stream.order import MAX_LANES, OrderSettings, default_lanes

_HOUR: Final = 3600.0
_MONTH_HOURS: Final = 30 * 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be trained, and on what.

    Attributes:
        images: Of the dataset.
        method: `mae` or `dinov2`.
        size: Of the ViT: tiny, small, base, large or huge.
        nodes: Machines.
        gpus: Of each machine.
        batch: Global batch.
        steps: Optimiser steps.
        image_px: Edge of the (global) crops.
        patch_px: Edge of a patch.
        images_per_second: Of one GPU where it was measured; by operations and utilisation without it.
        measured: What measured that rate; empty where nothing did.
    """

    images: float
    method: Method
    size: str
    nodes: int
    gpus: int
    batch: int
    steps: int
    image_px: int = 224
    patch_px: int = 16
    images_per_second: float | None = None
    measured: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of an estimate.

    Attributes:
        name: What it is.
        value: The number.
        unit: Of the number.
        formula: In words, with the numbers that went in.
    """

    name: str
    value: float
    unit: str
    formula: str


def estimate(job: Job, constants: Constants) -> list[Figure]:
    """All figures of a run, in the order in which they follow from one another."""
    return [*_dataset(job, constants), *_training(job, constants), *_reading(job, constants), *_costs(job, constants)]


def _dataset(job: Job, c: Constants) -> Iterator[Figure]:
    each = c.image_bytes + c.sample_overhead_bytes
    stored = job.images * each
    yield Figure(
        name="dataset",
        value=stored / 1e12,
        unit="TB",
        formula=f"{job.images:,.0f} images × ({c.image_bytes:,.0f} + {c.sample_overhead_bytes:,.0f}) bytes",
    )
    yield Figure(
        name="shards",
        value=num_shards(job, c),
        unit="objects",
        formula=f"dataset / {c.shard_bytes / 2**20:,.0f} MiB",
    )
    yield Figure(
        name="index",
        value=job.images * c.index_row_bytes / 1e9,
        unit="GB",
        formula=f"{job.images:,.0f} rows × {c.index_row_bytes:,.0f} bytes",
    )
    yield Figure(
        name="ingest",
        value=ingest_core_hours(job, c),
        unit="core-hours",
        formula=f"{job.images:,.0f} images × {c.ingest_core_seconds:g} core-seconds",
    )


def ingest_core_hours(job: Job, c: Constants) -> float:
    """Core-hours that the ingest of the images takes."""
    return job.images * c.ingest_core_seconds / _HOUR


def num_shards(job: Job, c: Constants) -> float:
    """Shards of the dataset."""
    return float(-(-job.images * (c.image_bytes + c.sample_overhead_bytes) // c.shard_bytes))


def _training(job: Job, c: Constants) -> Iterator[Figure]:
    seen = float(job.batch) * job.steps
    yield Figure(
        name="epochs",
        value=seen / job.images,
        unit="passes",
        formula=f"{job.batch:,} × {job.steps:,} / {job.images:,.0f}",
    )
    work = operations(job.method, job.size, image_px=job.image_px, patch_px=job.patch_px)
    yield Figure(
        name="operations",
        value=work / 1e9,
        unit="GFLOP per image",
        formula=f"{job.method}, ViT-{job.size.capitalize()}/{job.patch_px}, {job.image_px} px, forward and backward",
    )
    known = job.images_per_second is not None
    yield Figure(
        name="speed of a GPU",
        value=gpu_speed(job, c),
        unit="images/s",
        formula=job.measured if known else f"{c.utilisation:.0%} of {c.peak_flops / 1e12:,.0f} TFLOP/s / operations",
    )
    yield Figure(
        name="speed of all",
        value=gpu_speed(job, c) * job.nodes * job.gpus,
        unit="images/s",
        formula=f"speed of a GPU × {job.nodes} nodes × {job.gpus} GPUs",
    )
    yield Figure(
        name="training",
        value=hours(job, c),
        unit="hours",
        formula=f"{job.batch:,} × {job.steps:,} / speed of all / 3600",
    )
    yield Figure(
        name="GPU-hours",
        value=hours(job, c) * job.nodes * job.gpus,
        unit="GPU-hours",
        formula=f"training × {job.nodes * job.gpus} GPUs",
    )


def gpu_speed(job: Job, c: Constants) -> float:
    """Images per second of one GPU."""
    if job.images_per_second is not None:
        return job.images_per_second
    return c.utilisation * c.peak_flops / operations(job.method, job.size, image_px=job.image_px, patch_px=job.patch_px)


def hours(job: Job, c: Constants) -> float:
    """Hours that the steps take, when no GPU waits for data."""
    return float(job.batch) * job.steps / (gpu_speed(job, c) * job.nodes * job.gpus) / _HOUR


def decode_core_seconds(job: Job, c: Constants) -> float:
    """Core-seconds to decode one image and cut its crops."""
    crops = c.crop_core_seconds_per_megapixel * output_megapixels(job.method, image_px=job.image_px)
    return c.decode_core_seconds_per_megapixel * c.image_megapixels + crops


def num_bytes_read(job: Job, c: Constants) -> float:
    """Bytes that the whole training reads, nothing cached."""
    used = float(job.batch) * job.steps * (c.image_bytes + c.sample_overhead_bytes)
    return used * amplification(job, c)


def num_requests(job: Job, c: Constants) -> float:
    """Read requests of the whole training."""
    return num_bytes_read(job, c) / c.request_bytes


def amplification(job: Job, c: Constants) -> float:
    """Bytes read over bytes used."""
    ranks = job.nodes * job.gpus
    return c.read_amplification * sharing_amplification(ranks=ranks, batch=job.batch, constants=c)


def sharing_amplification(*, ranks: int, batch: int, constants: Constants, most_lanes: int = MAX_LANES) -> float:
    """What ranks that share a lane read in common: k · (1 - (1 - 1/k)^m), at least 1.

    A window is shuffled as a whole and dealt to the k ranks whose parts of a batch lie in it, so that a block of m
    samples is read by each of them that needs one. `python -m infra.bench.billion` counts it on the real order.

    Args:
        ranks: World size.
        batch: Global batch.
        constants: Bytes of a sample and of a block.
        most_lanes: As in a lock (`biovfm subset create --ranks`).
    """
    shared = sharing_ranks(ranks=ranks, batch=batch, most_lanes=most_lanes)
    return float(shared * (1 - (1 - 1 / shared) ** _block_samples(constants)))


def sharing_ranks(*, ranks: int, batch: int, most_lanes: int = MAX_LANES) -> float:
    """The k of `sharing_amplification`: ranks whose parts of a batch lie in one window, at least 1."""
    order = OrderSettings(global_batch=batch, num_lanes=default_lanes(batch, most_lanes))
    return max(min(ranks / order.num_lanes, order.window * ranks / batch), 1.0)


def _block_samples(constants: Constants) -> float:
    return constants.request_bytes / (constants.image_bytes + constants.sample_overhead_bytes)


def _reading(job: Job, c: Constants) -> Iterator[Figure]:
    ranks = job.nodes * job.gpus
    per_node = gpu_speed(job, c) * job.gpus
    each = c.image_bytes + c.sample_overhead_bytes
    yield Figure(
        name="read amplification",
        value=amplification(job, c),
        unit="bytes read per byte used",
        formula=(
            f"{c.read_amplification:g} × k · (1 - (1 - 1/k)^m), k = {sharing_ranks(ranks=ranks, batch=job.batch):g} "
            f"ranks share a window, m = {_block_samples(c):.0f} samples share a request"
        ),
    )
    yield Figure(
        name="bandwidth of a node",
        value=per_node * each * amplification(job, c) * 8 / 1e9,
        unit="Gbit/s",
        formula=f"{per_node:,.0f} images/s × {each:,.0f} bytes × read amplification × 8",
    )
    cost = decode_core_seconds(job, c)
    yield Figure(
        name="cores of a node",
        value=per_node * cost,
        unit="cores for decoding",
        formula=(
            f"{per_node:,.0f} images/s × ({c.decode_core_seconds_per_megapixel:g} s/MP × {c.image_megapixels:g} MP + "
            f"{c.crop_core_seconds_per_megapixel:g} s/MP × "
            f"{output_megapixels(job.method, image_px=job.image_px):.3f} MP of crops)"
        ),
    )
    yield Figure(
        name="cache of a node",
        value=job.images * each / 1e12,
        unit="TB",
        formula="dataset: each epoch deals the shards anew, so only a whole copy saves all later requests",
    )
    yield Figure(
        name="read in all",
        value=num_bytes_read(job, c) / 1e12,
        unit="TB",
        formula=f"{job.batch:,} × {job.steps:,} × {each:,.0f} bytes × read amplification, nothing cached",
    )
    yield Figure(
        name="read requests",
        value=num_requests(job, c),
        unit="requests",
        formula=f"read in all / {c.request_bytes / 2**20:g} MiB",
    )


def _costs(job: Job, c: Constants) -> Iterator[Figure]:
    gpu = hours(job, c) * job.nodes * job.gpus * c.gpu_hour_price
    stored = job.images * (c.image_bytes + c.sample_overhead_bytes) / 1e9 * c.storage_price
    requests = num_requests(job, c) / 1000 * c.get_price + num_shards(job, c) / 1000 * c.put_price
    ingest = ingest_core_hours(job, c) * c.core_hour_price
    transfer = num_bytes_read(job, c) / 1e9 * c.transfer_price
    months = max(hours(job, c) / _MONTH_HOURS, 1)
    yield Figure(name="cost of ingest", value=ingest, unit="price", formula=f"ingest × {c.core_hour_price:g}")
    yield Figure(name="cost of GPUs", value=gpu, unit="price", formula=f"GPU-hours × {c.gpu_hour_price:g}")
    yield Figure(
        name="cost of storage", value=stored, unit="price per month", formula=f"dataset in GB × {c.storage_price:g}"
    )
    yield Figure(
        name="cost of requests",
        value=requests,
        unit="price",
        formula=f"read requests × {c.get_price:g} / 1000 + shards × {c.put_price:g} / 1000",
    )
    yield Figure(
        name="cost of transfer", value=transfer, unit="price", formula=f"read in all in GB × {c.transfer_price:g}"
    )
    yield Figure(
        name="cost in all",
        value=ingest + gpu + stored * months + requests + transfer,
        unit="price",
        formula=f"ingest + GPUs + storage × {months:.2f} months (max of 1 and training / 720) + requests + transfer",
    )
