"""How fast ingest is, against the bare loop of the same libraries, and how much memory it takes.

    python -m infra.bench.ingest photographs [COUNT]     JPEGs of about 1 megapixel, end to end and bare
    python -m infra.bench.ingest folder FOLDER MODALITY  any folder, e.g. DICOM or NIfTI
    python -m infra.bench.ingest memory [COUNT …]        peak memory of a worker for so many images

The bare loop reads the file, decodes, resizes to the same short side, and encodes, with Pillow at the same settings,
on as many processes; ingest adds listing, checks, hashes, the tar, the tables and the commit.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ingest.job import run_job
from ingest.settings import IngestSettings
from ingest.spec import from_flags

SHORT_SIDE_PX = 512
WORKERS = 2


def make_photographs(folder: Path, count: int, size: tuple[int, int] = (1152, 864)) -> None:
    """Distinct JPEGs with detail at several scales, quality 90."""
    rng = np.random.default_rng(0)
    width, height = size
    layers = []
    for side in (9, 36, 144, 288, 1152):
        noise = rng.normal(0, 1, (side * height // width, side, 3)).astype(np.float32)
        scaled = [Image.fromarray(noise[..., c]).resize(size, Image.Resampling.BICUBIC) for c in range(3)]
        layers.append(np.stack([np.asarray(plane) for plane in scaled], axis=-1) * 26 / (1 + side / 200))
    for number in range(count):
        rolled = [np.roll(layer, rng.integers(0, 800, 2), (0, 1)) * rng.choice((-1, 1)) for layer in layers]
        picture = np.clip(128 + sum(rolled), 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=90)


def bare(path: Path) -> int:
    """Read, decode, resize and encode one photograph; the bytes that came out."""
    image = Image.open(io.BytesIO(path.read_bytes()))
    scale = SHORT_SIDE_PX / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95, subsampling=0)
    return len(buffer.getvalue())


def photographs(count: int) -> dict[str, Any]:
    """Images a second, bare and end to end, side by side."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        make_photographs(raw, count)
        files = sorted(raw.iterdir())
        rates: dict[str, list[float]] = {"bare": [], "ingest": []}
        for trial in range(3):
            with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
                pool.map(bare, files[:8])
                started = time.perf_counter()
                pool.map(bare, files, chunksize=16)
                rates["bare"].append(count / (time.perf_counter() - started))
            spec = from_flags(name="bench", modality="Fundus", deidentified=True)
            started = time.perf_counter()
            settings = IngestSettings(unit_files=max(1, count // 8))
            report = run_job(spec, str(raw), f"{scratch}/d{trial}", workers=WORKERS, settings=settings)
            rates["ingest"].append(count / (time.perf_counter() - started))
            assert report.kept == count, report
    middle = {name: sorted(values)[1] for name, values in rates.items()}
    return {
        "images": count,
        **{f"{name}_images_per_second": round(value, 1) for name, value in middle.items()},
        "share_of_bare": round(middle["ingest"] / middle["bare"], 3),
    }


def folder(path: str, modality: str) -> dict[str, Any]:
    """Images a second of a folder, end to end."""
    spec = from_flags(name="bench", modality=modality, deidentified=True)
    with tempfile.TemporaryDirectory() as scratch:
        report = run_job(spec, path, f"{scratch}/d", workers=WORKERS)
    rate = round(report.items / report.seconds, 1)
    return {"folder": path, "images": report.items, "kept": report.kept, "images_per_second": rate}


def memory(count: int) -> dict[str, Any]:
    """Peak memory of the job and of its worker; small images, so that their number is what counts."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        rng = np.random.default_rng(1)
        for number in range(count):
            small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            small.resize((160, 120), Image.Resampling.BICUBIC).save(raw / f"{number:06d}.jpg", quality=80)
        spec = from_flags(name="bench", modality="Fundus", deidentified=True)
        settings = IngestSettings(dedup={"near": True})
        report = run_job(spec, str(raw), f"{scratch}/d", workers=1, settings=settings)
    peaks = {
        "job_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "worker_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
    }
    return {"images": count, "kept": report.kept, "images_per_second": round(count / report.seconds, 1), **peaks}


def main(arguments: list[str]) -> None:
    """Run one benchmark and print it as JSON."""
    match arguments:
        case ["photographs", *rest]:
            print(json.dumps(photographs(int(rest[0]) if rest else 400)))
        case ["folder", path, modality]:
            print(json.dumps(folder(path, modality)))
        case ["memory", *rest]:
            for count in rest or ["1000", "20000"]:
                print(json.dumps(memory(int(count))), flush=True)
        case _:
            print(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
