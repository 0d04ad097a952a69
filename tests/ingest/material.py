"""Small raw files for the ingest tests, made on the spot."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ingest.job.run import JobReport, run_job
from ingest.settings import IngestSettings
from ingest.source.spec import SourceSpec, from_flags


def photo(seed: int, *, height: int = 96, width: int = 128, channels: int = 3) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth random picture, `(H, W, 3)` or `(H, W)` uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    image = Image.fromarray(noise[..., 0] if channels == 1 else noise).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


def encoded(pixels: np.ndarray[Any, Any], format_: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_, **options)
    return buffer.getvalue()


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def zip_of(files: Mapping[str, bytes], *, deflate: bool = True) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def public_spec(name: str = "test", modality: str | tuple[str, ...] = "Fundus", **more: Any) -> SourceSpec:
    return from_flags(name=name, modality=modality, deidentified=True, **more)


def ingest(raw: Path, dataset: Path, spec: SourceSpec | None = None, *, workers: int = 0, **settings: Any) -> JobReport:
    return run_job(spec or public_spec(), str(raw), str(dataset), workers=workers, settings=IngestSettings(**settings))


def tables(dataset: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of all tables, in a fixed order."""
    from shards.dataset.dataset import Dataset

    found = {}
    for name in ("index", "rejects", "fingerprints"):
        table = Dataset.open(str(dataset)).table(name)
        rows = table.to_pyarrow_table().to_pylist() if table else []
        found[name] = sorted(rows, key=str)
    return found


def shard_bytes(dataset: Path) -> dict[str, bytes]:
    return {str(path.relative_to(dataset)): path.read_bytes() for path in sorted((dataset / "shards").rglob("*.tar"))}
