"""NVIDIA DALI on the CPU: its webdataset reader, its crop-aware decoder.

https://docs.nvidia.com/deeplearning/dali
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nvidia.dali import fn, pipeline_def, types

from infra.bench.peers.loaders.harness import WORKERS, Job, main


@pipeline_def  # type: ignore[untyped-decorator]  # DALI has no types
def _pipeline(paths: list[str], indices: list[str], workload: str) -> Any:
    jpeg = fn.readers.webdataset(
        paths=paths, index_paths=indices, ext=["jpg"], random_shuffle=True, initial_fill=1000, name="reader"
    )
    if workload == "C":
        return jpeg
    if workload == "A":
        image = fn.decoders.image_random_crop(
            jpeg, device="cpu", output_type=types.RGB, random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        image = fn.resize(image, resize_x=224, resize_y=224, interp_type=types.INTERP_LINEAR, antialias=True)
        return fn.flip(image, horizontal=fn.random.coin_flip(probability=0.5))
    image = fn.decoders.image(jpeg, device="cpu", output_type=types.RGB)
    image = fn.resize(image, resize_shorter=224, interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.crop(image, crop=(224, 224))


def batches(job: Job) -> Iterator[int]:
    """An endless pass."""
    pipeline = _pipeline(
        sorted(str(path) for path in job.data.glob("*.tar")),
        sorted(str(path) for path in job.data.glob("*.idx")),
        job.workload,
        batch_size=job.batch,
        num_threads=WORKERS,
        device_id=None,
        seed=0,
        prefetch_queue_depth=2,
    )
    pipeline.build()
    while True:
        (images,) = pipeline.run()
        yield len(images)


if __name__ == "__main__":
    main(batches)
