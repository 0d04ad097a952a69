"""Frozen features of a task, computed once: batched, in eval mode, cached on disk and resumable.

A cached split is one float32 `.npy` under `<cache>/<key>/`, memory-mapped when read. The key hashes everything that
the numbers depend on: the weights, the archive, image size, pooling and normalisation. While a split is computed its
rows go to `<split>.partial.npy` and the number of finished rows to `<split>.done`; a killed run continues there.

Cost: one forward pass an image, once for each backbone; N·D·4 bytes of disk (ViT-S, the twelve tasks: 1.1 GB).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from eval.encoders.encoder import Backbone, PixelEncoder, Pooling, PoolingChoice
from eval.medmnist.data import SPLITS, Split, SplitName, Task
from shards.files import mapped_array

Features = npt.NDArray[np.float32]
Report = Callable[[int, int], None]
_FORMAT: Final = 1
_LUMA: Final = (0.299, 0.587, 0.114)


class Extraction(TypedDict, total=False):
    """How features are made: what every probe passes on to `extract`, which documents and defaults them."""

    pooling: PoolingChoice
    image_size_px: int | None
    cache: Path | None
    batch_size: int
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSet:
    """Features of the three splits of one task.

    Attributes:
        train: (N, D) float32, memory-mapped.
        val: (N, D) float32.
        test: (N, D) float32.
        key: Hash of everything that the features depend on.
    """

    train: Features
    val: Features
    test: Features
    key: str

    def split(self, name: SplitName) -> Features:
        """Features of one split."""
        splits: dict[SplitName, Features] = {"train": self.train, "val": self.val, "test": self.test}
        return splits[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How uint8 images become the network's input.

    Attributes:
        image_size_px: Edge after bicubic, antialiased resizing.
        mean: Subtracted from images in [0, 1].
        std: Divided by.
    """

    image_size_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, backbone: Backbone, *, image_size_px: int | None = None) -> Preprocessing:
        """What the backbone was trained with, at another image size where one is given."""
        return cls(image_size_px=image_size_px or backbone.image_size_px, mean=backbone.mean, std=backbone.std)

    def __call__(self, images: npt.NDArray[np.uint8], *, device: str = "cpu") -> Tensor:
        """Prepare a batch.

        Args:
            images: (B, H, W) or (B, H, W, 3) uint8; grey images become three equal channels.
            device: Where the batch goes.

        Returns:
            (B, 3, S, S) float32, normalised; (B, 1, S, S) for a grey network.
        """
        return self.normalise(to_unit(images, device=device))

    def normalise(self, images_BCHW: Tensor) -> Tensor:
        """Resize and normalise (B, 3, H, W) float32 in [0, 1]."""
        size = (self.image_size_px, self.image_size_px)
        if images_BCHW.shape[-2:] != size:
            images_BCHW = nn.functional.interpolate(images_BCHW, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        if len(self.mean) == 1:
            luma = torch.tensor(_LUMA, device=images_BCHW.device).view(1, 3, 1, 1)
            images_BCHW = (images_BCHW * luma).sum(dim=1, keepdim=True)
        mean, std = (torch.tensor(v, device=images_BCHW.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images_BCHW - mean) / std


def to_unit(images: npt.NDArray[np.uint8], *, device: str = "cpu") -> Tensor:
    """(B, H, W) or (B, H, W, 3) uint8 to (B, 3, H, W) float32 in [0, 1]."""
    batch = torch.from_numpy(np.array(images)).to(device)
    batch = batch.unsqueeze(1) if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
    return (batch.float() / 255).expand(-1, 3, -1, -1)


def extract(
    backbone: Backbone,
    task: Task,
    *,
    pooling: PoolingChoice = "auto",
    image_size_px: int | None = None,
    cache: Path | None = None,
    batch_size: int = 256,
    device: str = "cpu",
    report: Report | None = None,
) -> FeatureSet:
    """Features of all three splits, from the cache where they are there.

    Args:
        backbone: From `eval.encoders.encoder.load_backbone`, on `device`.
        task: From `eval.medmnist.data.load_task`.
        pooling: `patch_mean`, `cls` or `cls_patch_mean` (see `Backbone.features`), or `auto` (see `Backbone.pooling`).
        image_size_px: Edge that the network sees; None takes the one that it was trained on.
        cache: Folder of cached features; None takes `feature_cache()`.
        batch_size: Images a forward pass.
        device: Where the network runs.
        report: Called with (images done, images in all) after every batch.

    Raises:
        ConfigError: Unknown pooling, or one that the network does not have.
    """
    readout = backbone.pooling(pooling)
    preprocessing = Preprocessing.of(backbone, image_size_px=image_size_px)
    backbone.check_image_size(preprocessing.image_size_px)
    key = feature_key(backbone, task, readout, preprocessing)
    folder = (cache or feature_cache()) / key
    folder.mkdir(parents=True, exist_ok=True)
    done, total = 0, sum(len(task.split(name)) for name in SPLITS)
    features: dict[SplitName, Features] = {}
    for name in SPLITS:
        part = task.split(name)

        def tell(rows: int, before: int = done) -> None:
            if report:
                report(before + rows, total)

        encode = _encoder(backbone, preprocessing, readout, part, device)
        job = _Job(folder=folder, name=name, num_rows=len(part), batch_size=batch_size, encode=encode, tell=tell)
        features[name] = job.rows()
        done += len(part)
        tell(0, done)
    return FeatureSet(key=key, **features)


def feature_cache() -> Path:
    """The folder where features are kept when none is given."""
    home = os.environ.get("BIOVFM_CACHE") or str(Path.home() / ".cache" / "biovfm")
    return Path(home).expanduser() / "features"


def feature_key(backbone: Backbone, task: Task, pooling: Pooling, preprocessing: Preprocessing) -> str:
    """Hash of everything that features depend on."""
    facts: dict[str, Any] = {
        "format": _FORMAT,
        "weights": backbone.digest,
        "images": task.digest,
        "task": task.name,
        "pooling": pooling,
        "image_size_px": preprocessing.image_size_px,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "model": str(backbone.model) if not isinstance(backbone.model, PixelEncoder) else "pixels",
    }
    return f"{task.name}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]}"


def _encoder(
    backbone: Backbone, preprocessing: Preprocessing, pooling: Pooling, part: Split, device: str
) -> Callable[[int, int], Features]:
    channels = slice(0, 1) if isinstance(backbone.model, PixelEncoder) and part.images.ndim == 3 else slice(None)

    @torch.inference_mode()
    def encode(start: int, stop: int) -> Features:
        batch = preprocessing(part.images[start:stop], device=device)[:, channels]
        rows: Features = backbone.features(batch, pooling).cpu().numpy()
        return rows

    return encode


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """Rows of one split, to be computed into a folder."""

    folder: Path
    name: str
    num_rows: int
    batch_size: int
    encode: Callable[[int, int], Features]
    tell: Callable[[int], None]

    def rows(self) -> Features:
        """From the cache, from where a killed run stopped, or from the start; one process at a time computes."""
        finished = self.folder / f"{self.name}.npy"
        if not finished.is_file():
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not finished.is_file():
                    self._compute(finished)
        rows: Features = np.load(finished, mmap_mode="r", allow_pickle=False)
        return rows

    def _compute(self, finished: Path) -> None:
        partial, marker = self.folder / f"{self.name}.partial.npy", self.folder / f"{self.name}.done"
        start = int(marker.read_text()) if marker.is_file() and partial.is_file() else 0
        rows: npt.NDArray[np.float32] = np.load(partial, mmap_mode="r+") if start else self._begin(partial)
        for begin in range(start, self.num_rows, self.batch_size):
            stop = min(begin + self.batch_size, self.num_rows)
            rows[begin:stop] = self.encode(begin, stop)
            if isinstance(rows, np.memmap):
                rows.flush()
            _write_atomically(marker, str(stop))
            self.tell(stop)
        partial.replace(finished)
        marker.unlink(missing_ok=True)

    def _begin(self, partial: Path) -> Features:
        dimension = self.encode(0, 1).shape[1]
        rows: Features = mapped_array(partial, dtype=np.float32, shape=(self.num_rows, dimension))
        return rows


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
