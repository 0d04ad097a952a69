"""From the size of a run to what it needs: one figure after the other, each with the formula that made it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from infra.estimate.constants import Constants
from infra.estimate.digits import digits
from infra.estimate.operations import Method, operations, output_megapixels
from infra.estimate.reading import Reading, read_by_ranks
from shards.stream.order import MAX_LANES

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
        most_lanes: Most lanes of an epoch, as the lock says (`biovfm subset create --ranks`).
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
    most_lanes: int = MAX_LANES
    image_px: int = 224
    patch_px: int = 16
    images_per_second: float | None = None
    measured: str = ""

    @property
    def ranks(self) -> int:
        """One for each GPU."""
        return self.nodes * self.gpus


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
        formula=f"{job.images:,.0f} images × ({_exact(c.image_bytes)} + {_exact(c.sample_overhead_bytes)}) bytes",
    )
    yield Figure(
        name="shards",
        value=num_shards(job, c),
        unit="objects",
        formula=f"dataset / {_exact(c.shard_bytes / 2**20)} MiB, rounded up",
    )
    yield Figure(
        name="index",
        value=job.images * c.index_row_bytes / 1e9,
        unit="GB",
        formula=f"{job.images:,.0f} rows × {_exact(c.index_row_bytes)} bytes",
    )
    yield Figure(
        name="ingest",
        value=ingest_core_hours(job, c),
        unit="core-hours",
        formula=f"{job.images:,.0f} images × {_exact(c.ingest_core_seconds)} core-seconds / 3600",
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
        formula=job.measured
        if known
        else f"{_exact(c.utilisation * 100)}% of {_exact(c.peak_flops / 1e12)} TFLOP/s / operations",
    )
    yield Figure(
        name="speed of all",
        value=gpu_speed(job, c) * job.ranks,
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
        value=hours(job, c) * job.ranks,
        unit="GPU-hours",
        formula=f"training × {job.ranks} GPUs",
    )


def gpu_speed(job: Job, c: Constants) -> float:
    """Images per second of one GPU."""
    if job.images_per_second is not None:
        return job.images_per_second
    return c.utilisation * c.peak_flops / operations(job.method, job.size, image_px=job.image_px, patch_px=job.patch_px)


def hours(job: Job, c: Constants) -> float:
    """Hours that the steps take, when no GPU waits for data."""
    return float(job.batch) * job.steps / (gpu_speed(job, c) * job.ranks) / _HOUR


def decode_core_seconds(job: Job, c: Constants) -> float:
    """Core-seconds to decode one image and cut its crops."""
    crops = c.crop_core_seconds_per_megapixel * output_megapixels(job.method, image_px=job.image_px)
    return c.decode_core_seconds_per_megapixel * c.image_megapixels + crops


def num_bytes_read(job: Job, c: Constants) -> float:
    """Bytes that the whole training reads, nothing cached."""
    used = float(job.batch) * job.steps * (c.image_bytes + c.sample_overhead_bytes)
    return used * reading(job, c).amplification


def num_requests(job: Job, c: Constants) -> float:
    """Read requests of the whole training."""
    return float(job.batch) * job.steps if reading(job, c).alone else num_bytes_read(job, c) / c.request_bytes


def reading(job: Job, c: Constants) -> Reading:
    """How the ranks of the job read."""
    return read_by_ranks(ranks=job.ranks, batch=job.batch, most_lanes=job.most_lanes, constants=c)


def _reading(job: Job, c: Constants) -> Iterator[Figure]:
    per_node = gpu_speed(job, c) * job.gpus
    read = reading(job, c)
    each = c.image_bytes + c.sample_overhead_bytes
    yield Figure(
        name="read amplification",
        value=read.amplification,
        unit="bytes read per byte used",
        formula=read.formula,
    )
    yield Figure(
        name="bandwidth of a node",
        value=per_node * each * read.amplification * 8 / 1e9,
        unit="Gbit/s",
        formula=f"{_exact(per_node)} images/s × {_exact(each)} bytes × read amplification × 8",
    )
    cost = decode_core_seconds(job, c)
    yield Figure(
        name="cores of a node",
        value=per_node * cost,
        unit="cores for decoding",
        formula=(
            f"{_exact(per_node)} images/s × "
            f"({_exact(c.decode_core_seconds_per_megapixel)} s/MP × {_exact(c.image_megapixels)} MP + "
            f"{_exact(c.crop_core_seconds_per_megapixel)} s/MP × "
            f"{_exact(output_megapixels(job.method, image_px=job.image_px))} MP of crops)"
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
        formula=f"{job.batch:,} × {job.steps:,} × {_exact(each)} bytes × read amplification, nothing cached",
    )
    yield Figure(
        name="read requests",
        value=num_requests(job, c),
        unit="requests",
        formula=(
            f"{job.batch:,} × {job.steps:,} images, a request each"
            if read.alone
            else f"read in all / {_exact(c.request_bytes / 2**20)} MiB"
        ),
    )


def _costs(job: Job, c: Constants) -> Iterator[Figure]:
    gpu = hours(job, c) * job.ranks * c.gpu_hour_price
    stored = job.images * (c.image_bytes + c.sample_overhead_bytes) / 1e9 * c.storage_price
    requests = num_requests(job, c) / 1000 * c.get_price + num_shards(job, c) / 1000 * c.put_price
    ingest = ingest_core_hours(job, c) * c.core_hour_price
    transfer = num_bytes_read(job, c) / 1e9 * c.transfer_price
    months = max(hours(job, c) / _MONTH_HOURS, 1)
    yield Figure(name="cost of ingest", value=ingest, unit="price", formula=f"ingest × {_exact(c.core_hour_price)}")
    yield Figure(name="cost of GPUs", value=gpu, unit="price", formula=f"GPU-hours × {_exact(c.gpu_hour_price)}")
    yield Figure(
        name="cost of storage",
        value=stored,
        unit="price per month",
        formula=f"dataset in GB × {_exact(c.storage_price)}",
    )
    yield Figure(
        name="cost of requests",
        value=requests,
        unit="price",
        formula=f"read requests × {_exact(c.get_price)} / 1000 + shards × {_exact(c.put_price)} / 1000",
    )
    yield Figure(
        name="cost of transfer", value=transfer, unit="price", formula=f"read in all in GB × {_exact(c.transfer_price)}"
    )
    yield Figure(
        name="cost in all",
        value=ingest + gpu + stored * months + requests + transfer,
        unit="price",
        formula=(
            f"cost of ingest + cost of GPUs + cost of storage × {_exact(months)} months (max of 1 and training / 720)"
            " + cost of requests + cost of transfer"
        ),
    )


def _exact(value: float) -> str:
    """A number that goes into a formula: what follows from it is to be right in all digits that are shown."""
    return digits(value, 6)
