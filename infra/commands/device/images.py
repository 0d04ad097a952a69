"""Images for the device's check: those of a bare tar, or drawn ones; and a stream over them that needs no index."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.decode import Crops, Decoder
from shards.decode.base import Blob
from shards.errors import ConfigError
from shards.stream.digests import Digests

__all__ = ["TarBatch", "TarStream", "drawn_jpegs", "read_tar"]


def drawn_jpegs(num: int, *, side: int, subsampling: int = 2) -> list[bytes]:
    """Photograph-like JPEGs of `side` x `side` pixels at quality 90; the same on every machine.

    Args:
        num: How many.
        side: Pixels.
        subsampling: Of the chroma as Pillow counts it: 0 is 4:4:4, 2 is 4:2:0.
    """
    from PIL import Image

    images = []
    for number in range(num):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        fine = rng.normal(0, 6, (side, side, 3))
        pixels = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float64) + fine
        stream = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
            stream, "JPEG", quality=90, subsampling=subsampling
        )
        images.append(stream.getvalue())
    return images


def read_tar(path: Path, limit: int | None = None) -> list[bytes]:
    """The images of a shard, in its order.

    Raises:
        ConfigError: There is no such tar, or it holds no image.
    """
    try:
        with tarfile.open(path) as tar:
            members = [member for member in tar if member.name.endswith((".jpg", ".png"))][:limit]
            files = [tar.extractfile(member) for member in members]
            images = [file.read() for file in files if file is not None]
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"{path} cannot be read as a shard: {error}", hint="give a .tar of a dataset") from error
    if not images:
        raise ConfigError(f"{path} holds no .jpg or .png", hint="give a .tar of a dataset")
    return images


@dataclass(frozen=True, slots=True, kw_only=True)
class TarBatch:
    """A batch as `shards.stream.Batch` has it."""

    views: tuple[NDArray[np.uint8], ...]
    blobs: tuple[Blob, ...]
    keys: tuple[str, ...]
    seeds: NDArray[np.uint64]
    epoch: int
    index: int


class TarStream:
    """Batches of a few images over and over, decoded by threads: `shards.stream.Stream` without a dataset.

    Args:
        images: Compressed.
        crops: What to cut.
        global_batch: Images a batch.
        decoder: Decodes on the host, or leaves images to the device.
        threads: That decode.
    """

    digest = "tar"

    def __init__(
        self, images: list[bytes], *, crops: tuple[Crops, ...], global_batch: int, decoder: Decoder, threads: int
    ) -> None:
        self.crops = crops
        self.defers = decoder.name == "device"
        self.num_samples = len(images)
        self._images, self._size, self._decoder, self._threads = images, global_batch, decoder, threads
        self._next = 0

    @property
    def digests(self) -> Digests:
        """Of nothing but the number of images."""
        return Digests(samples=self.digest, order=self.digest, num_samples=self.num_samples)

    def __iter__(self) -> Iterator[TarBatch]:
        return self.lend(lambda shapes: tuple(np.empty(shape, np.uint8) for shape in shapes))

    def lend(self, take: Any) -> Generator[TarBatch, None, None]:
        """Batches in arrays of the caller, two under way."""
        from concurrent.futures import ThreadPoolExecutor

        shapes = [(self._size, crop.num, crop.size_px, crop.size_px, 3) for crop in self.crops]
        with ThreadPoolExecutor(self._threads) as pool:
            waiting = [self._begin(pool, take(shapes)) for _ in range(2)]
            while True:
                number, blobs, seeds, views, parts = waiting.pop(0)
                status = np.concatenate([part.result() for part in parts])
                waiting.append(self._begin(pool, take(shapes)))
                left = tuple(blob if one == 3 else b"" for blob, one in zip(blobs, status.tolist(), strict=True))
                keys = tuple(str(number * self._size + place) for place in range(self._size))
                yield TarBatch(
                    views=views, blobs=left if self.defers else (), keys=keys, seeds=seeds, epoch=0, index=number
                )

    def _begin(self, pool: Any, views: tuple[NDArray[np.uint8], ...]) -> Any:
        number, self._next = self._next, self._next + 1
        first = number * self._size
        blobs = [self._images[(first + place) % len(self._images)] for place in range(self._size)]
        seeds = np.arange(first, first + self._size, dtype=np.uint64)
        parts = []
        for start in range(0, self._size, 32):
            part = slice(start, start + 32)
            out = [view[part] for view in views]
            parts.append(pool.submit(self._decoder.decode, blobs[part], seeds[part], self.crops, out))
        return number, blobs, seeds, views, parts

    def state_dict(self) -> dict[str, Any]:
        """How many batches were begun."""
        return {"batch": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a batch."""
        self._next = int(state["batch"])

    def close(self) -> None:
        """Nothing stays open."""
