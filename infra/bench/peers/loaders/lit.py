"""litdata: an optimized dataset of compressed images, decoded to tensors by torchvision.

https://github.com/Lightning-AI/litData
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from litdata import StreamingDataLoader, StreamingDataset, optimize

from infra.bench.peers.loaders.harness import WORKERS, Job, decode, main, transform


class _Images(StreamingDataset):  # type: ignore[misc]  # litdata has no types
    def __init__(self, folder: str, workload: str) -> None:
        super().__init__(folder, shuffle=True, drop_last=True, seed=0)
        self._change = None if workload == "C" else transform(workload, tensors=True)

    def __getitem__(self, index: Any) -> Any:
        sample = super().__getitem__(index)
        return bytes(sample["image"]) if self._change is None else self._change(decode(sample["image"]))


def _sample(path: str) -> dict[str, Any]:
    return {"image": Path(path).read_bytes(), "label": int(Path(path).stem) % 8}


def write(files: Path, folder: Path) -> None:
    """Chunks of 64 MB."""
    paths = sorted((str(path) for path in files.rglob("*.jpg")), key=lambda path: Path(path).stem)
    optimize(fn=_sample, inputs=paths, output_dir=str(folder), chunk_bytes="64MB", num_workers=1)


def batches(job: Job) -> Iterator[int]:
    """A shuffled pass."""
    loader = StreamingDataLoader(
        _Images(str(job.data), job.workload),
        batch_size=job.batch,
        num_workers=WORKERS,
        drop_last=True,
        collate_fn=list if job.workload == "C" else None,
    )
    for batch in loader:
        yield len(batch)


if __name__ == "__main__":
    main(batches, write)
