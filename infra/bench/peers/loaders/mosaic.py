"""mosaicml-streaming: MDS shards, decoded by Pillow.

https://docs.mosaicml.com/projects/streaming
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from streaming import MDSWriter, StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch.utils.data import DataLoader

from infra.bench.peers.loaders.harness import WORKERS, Job, main, transform


class _Images(StreamingDataset):  # type: ignore[misc]  # mosaicml-streaming has no types
    def __init__(self, folder: str, workload: str, batch: int) -> None:
        super().__init__(local=folder, shuffle=True, batch_size=batch, shuffle_seed=0)
        self._change = None if workload == "C" else transform(workload, tensors=False)

    def __getitem__(self, at: Any) -> Any:
        data = super().__getitem__(at)["jpg"]
        return data if self._change is None else self._change(Image.open(io.BytesIO(data)).convert("RGB"))


def write(files: Path, folder: Path) -> None:
    """Shards of 64 MiB."""
    paths = sorted(files.rglob("*.jpg"), key=lambda path: path.stem)
    with MDSWriter(out=str(folder), columns={"jpg": "bytes", "label": "int"}, size_limit=64 << 20) as out:
        for path in paths:
            out.write({"jpg": path.read_bytes(), "label": int(path.stem) % 8})


def batches(job: Job) -> Iterator[int]:
    """A shuffled pass."""
    clean_stale_shared_memory()  # what a run that was stopped leaves behind would stop this one
    loader: DataLoader[Any] = DataLoader(
        _Images(str(job.data), job.workload, job.batch),
        batch_size=job.batch,
        num_workers=WORKERS,
        drop_last=True,
        collate_fn=list if job.workload == "C" else None,
    )
    for batch in loader:
        yield len(batch)


if __name__ == "__main__":
    main(batches, write)
