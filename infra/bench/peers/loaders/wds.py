"""webdataset: shuffled shards and a shuffle buffer, decoded by Pillow, batched in the workers.

https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import webdataset

from infra.bench.peers.loaders.harness import WORKERS, Job, main, transform


def batches(job: Job) -> Iterator[int]:
    """A pass over the tars."""
    shards = sorted(str(path) for path in job.data.glob("*.tar"))
    dataset: Any = webdataset.WebDataset(shards, shardshuffle=100, empty_check=False).shuffle(1000)
    if job.workload == "C":
        dataset = dataset.to_tuple("jpg", "cls").batched(job.batch, collation_fn=list)
    else:
        dataset = dataset.decode("pil").to_tuple("jpg", "cls")
        dataset = dataset.map_tuple(transform(job.workload, tensors=False), int).batched(job.batch)
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=WORKERS)
    for batch in loader:
        yield len(batch) if job.workload == "C" else len(batch[0])


if __name__ == "__main__":
    main(batches)
