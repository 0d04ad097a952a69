"""What every loader script shares: its job, the measuring, the usual transforms.

A script defines `batches`, which yields the number of images of each batch it hands out, and calls `main`. Its
imports are done by then and cost nothing here; the loader's making, its processes and its first batch do. CPU and
memory are those of the whole process tree. Nothing but the standard library is imported at the top.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WORKERS = 2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to measure.

    Attributes:
        data: Folder of the corpus in the loader's format.
        workload: A, B, C or M.
        variant: The contestant's variant.
        batch: Images a batch.
        first: Batches before the measured ones.
        last: The last measured batch, counted from 1.
    """

    data: Path
    workload: str
    variant: str
    batch: int
    first: int
    last: int


def main(batches: Callable[[Job], Iterator[int]], write: Callable[[Path, Path], None] | None = None) -> None:
    """Measure `batches`, or write the corpus into the loader's own format.

    Args:
        batches: Yields the number of images of each batch.
        write: Given the folder of plain files and the folder to fill.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write-from", type=Path)
    parser.add_argument("--workload", default="A")
    parser.add_argument("--variant", default="")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--first", type=int, default=4)
    parser.add_argument("--last", type=int, default=14)
    options = vars(parser.parse_args())
    source = options.pop("write_from")
    if source is not None:
        assert write is not None
        write(source, options["data"])
        return
    sys.stdout.write(json.dumps(measure(batches, Job(**options))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # worker processes of some loaders take long to end, or never do


def measure(batches: Callable[[Job], Iterator[int]], job: Job) -> dict[str, float]:
    """Images a second, CPU seconds per 1000 images, seconds to the first batch, memory in MB."""
    before = tree_memory()
    began = time.perf_counter()
    first_batch = 0.0
    memory = before
    at, cpu, images = began, 0.0, 0
    for number, size in enumerate(batches(job), 1):
        images += size
        if number == 1:
            first_batch = time.perf_counter() - began
            memory = max(memory, tree_memory())
        if number == job.first:
            at, cpu, images = time.perf_counter(), tree_cpu(), 0
        if number == job.last:
            break
    seconds, spent = time.perf_counter() - at, tree_cpu() - cpu
    memory = max(memory, tree_memory())
    assert images
    assert number == job.last, "the corpus is too small for so many batches"
    return {
        "images_per_second": images / seconds,
        "cpu_seconds_per_1000": 1000 * spent / images,
        "first_batch_seconds": first_batch,
        "memory_mb": memory,
        "memory_over_imports_mb": memory - before,
        "images": images,
    }


def tree() -> list[int]:
    """This process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(entry.name)
            if fields:
                parents[int(entry.name)] = int(fields[1])
    found = [os.getpid()]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def tree_cpu() -> float:
    """User and system seconds of the tree, ended children included."""
    total = 0
    for process in tree():
        fields = _stat(str(process))
        total += sum(int(value) for value in fields[11:15])
    return total / _TICKS


def tree_memory() -> float:
    """Proportional set size of the tree in MB: shared pages count once."""
    total = 0
    for process in tree():
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def _stat(process: str) -> list[str]:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def transform(workload: str, *, tensors: bool) -> Callable[[Any], Any]:
    """The torchvision transforms of a workload, on tensors `(C, H, W)` uint8 or on PIL images (to such tensors).

    Workload M gives a list of crops.
    """
    from torchvision.transforms import v2

    last: list[Any] = [] if tensors else [v2.PILToTensor()]

    def crop(size: int, scale: tuple[float, float]) -> Callable[[Any], Any]:
        change: Callable[[Any], Any] = v2.Compose(
            [v2.RandomResizedCrop(size, scale=scale, antialias=True), v2.RandomHorizontalFlip(), *last]
        )
        return change

    if workload == "A":
        return crop(224, (0.08, 1.0))
    if workload == "B":
        centred: Callable[[Any], Any] = v2.Compose([v2.Resize(224, antialias=True), v2.CenterCrop(224), *last])
        return centred
    large, small = crop(224, (0.32, 1.0)), crop(96, (0.05, 0.32))

    def many(image: Any) -> list[Any]:
        return [large(image) for _ in range(2)] + [small(image) for _ in range(8)]

    return many


def decode(blob: bytes) -> Any:
    """A JPEG to a tensor `(3, H, W)` uint8."""
    import warnings

    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the buffer is read-only, and nobody writes to it
        data = torch.frombuffer(blob, dtype=torch.uint8)
    return decode_jpeg(data, mode=ImageReadMode.RGB)


def count(batch: Any, workload: str) -> int:
    """Images of a collated batch: a tensor, a list of compressed images, or a list with one tensor a crop (M)."""
    return len(batch[0]) if workload == "M" else len(batch)
