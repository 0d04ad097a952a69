"""ImageFolder of torchvision under a DataLoader: decoded by Pillow (or pillow-simd, where installed) or to tensors.

https://docs.pytorch.org/vision/stable/transforms.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from infra.bench.peers.loaders.harness import WORKERS, Job, count, decode, main, transform


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _decode(path: str) -> Any:
    return decode(_read(path))


def _lists(pairs: list[tuple[bytes, int]]) -> list[list[Any]]:
    return [list(column) for column in zip(*pairs, strict=True)]


def batches(job: Job) -> Iterator[int]:
    """Variants: pillow, tensor."""
    raw = job.workload == "C"
    if raw:
        dataset = ImageFolder(str(job.data), loader=_read)
    elif job.variant == "tensor":
        dataset = ImageFolder(str(job.data), transform=transform(job.workload, tensors=True), loader=_decode)
    else:
        dataset = ImageFolder(str(job.data), transform=transform(job.workload, tensors=False))
    loader = DataLoader(
        dataset, batch_size=job.batch, shuffle=True, num_workers=WORKERS, collate_fn=_lists if raw else None
    )
    for images, _ in loader:
        yield count(images, job.workload)


if __name__ == "__main__":
    main(batches)
