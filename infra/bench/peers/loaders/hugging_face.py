"""Hugging Face datasets: parquet files with an image column, streamed, decoded by Pillow.

https://huggingface.co/docs/datasets/stream
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
from torch.utils.data import DataLoader

from infra.bench.peers.loaders.harness import WORKERS, Job, main, transform


def batches(job: Job) -> Iterator[int]:
    """A shuffled pass."""
    files = sorted(str(path) for path in job.data.glob("*.parquet"))
    raw = job.workload == "C"
    features = datasets.Features({"image": datasets.Image(decode=not raw), "label": datasets.Value("int64")})
    source = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True, features=features)
    source = source.shuffle(seed=0, buffer_size=1000)
    if not raw:
        change = transform(job.workload, tensors=False)

        def changed(sample: dict[str, Any]) -> dict[str, Any]:
            return {"image": change(sample["image"].convert("RGB")), "label": sample["label"]}

        source = source.map(changed)
    loader = DataLoader(source, batch_size=job.batch, num_workers=WORKERS, collate_fn=list if raw else None)
    for batch in loader:
        yield len(batch) if raw else len(batch["image"])


if __name__ == "__main__":
    main(batches)
