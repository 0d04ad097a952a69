"""SPDL: shuffled tars, its tar iterator, FFmpeg decoding with the crop in the filter, in a pipeline of threads.

https://facebookresearch.github.io/spdl
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import spdl.io
from spdl.pipeline import PipelineBuilder

from infra.bench.peers.loaders.harness import WORKERS, Job, main

_BUFFER = 1000


def _samples(folder: Path) -> Iterator[bytes]:
    """The images of shuffled tars through a shuffle buffer."""
    chosen = random.Random(0)  # noqa: S311 - an order, not a secret
    shards = sorted(folder.glob("*.tar"))
    chosen.shuffle(shards)
    buffer: list[bytes] = []
    for shard in shards:
        with shard.open("rb") as stream:
            for name, data in spdl.io.iter_tarfile(stream):
                if name.endswith(".jpg"):
                    buffer.append(bytes(data))
                if len(buffer) > _BUFFER:
                    at = chosen.randrange(len(buffer))
                    buffer[at], buffer[-1] = buffer[-1], buffer[at]
                    yield buffer.pop()
    yield from buffer


def _random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """RandomResizedCrop's box, as torchvision draws it."""
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)  # noqa: S311
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))  # noqa: S311
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return wide, high, random.randint(0, width - wide), random.randint(0, height - high)  # noqa: S311
    side = min(width, height)
    return side, side, (width - side) // 2, (height - side) // 2


def _crop(data: bytes) -> Any:
    packets = spdl.io.demux_image(data)
    wide, high, left, top = _random_box(packets.width, packets.height)
    flip = ",hflip" if random.random() < 0.5 else ""  # noqa: S311
    steps = f"crop={wide}:{high}:{left}:{top},scale=224:224:flags=bilinear{flip},format=pix_fmts=rgb24"
    return spdl.io.decode_packets(packets, filter_desc=steps)


def _centre(data: bytes) -> Any:
    packets = spdl.io.demux_image(data)
    size = "-1:224" if packets.width >= packets.height else "224:-1"
    steps = f"scale={size}:flags=bilinear,crop=224:224,format=pix_fmts=rgb24"
    return spdl.io.decode_packets(packets, filter_desc=steps)


def _stack(frames: list[Any]) -> Any:
    return spdl.io.to_numpy(spdl.io.convert_frames(frames))


def batches(job: Job) -> Iterator[int]:
    """A pass over the tars."""
    builder = PipelineBuilder().add_source(_samples(job.data))
    if job.workload == "C":
        builder = builder.aggregate(job.batch)
    else:
        decode = _crop if job.workload == "A" else _centre
        builder = builder.pipe(decode, concurrency=WORKERS).aggregate(job.batch).pipe(_stack)
    pipeline = builder.add_sink(3).build(num_threads=WORKERS)
    with pipeline.auto_stop():
        for batch in pipeline:
            yield len(batch)


if __name__ == "__main__":
    main(batches)
