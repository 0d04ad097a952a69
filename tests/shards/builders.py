"""Small datasets for the tests, made the way ingest makes them."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from shards.dataset.dataset import Dataset
from shards.dataset.shard_file import Sample, ShardWriter, shard_path
from shards.decode.header import ImageHeader, read_header
from shards.schema import index_schema, rejects_schema


def jpeg(number: int, *, size: tuple[int, int] = (80, 64), gray: bool = False) -> bytes:
    """A JPEG that no other number gives."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 255, (8, 10) if gray else (8, 10, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def add_source(
    dataset: Dataset,
    source: str,
    modality: str,
    images: Sequence[bytes],
    *,
    per_shard: int = 16,
    job_id: str | None = None,
    row: Mapping[str, object] | None = None,
) -> list[str]:
    """Commit images as one job, with `row` in place of what the index should say; returns their keys."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(images), per_shard):
            writer = ShardWriter(Path(folder) / f"{start}.tar")
            placed = []
            for number, image in enumerate(images[start : start + per_shard], start):
                digest = hashlib.sha256(image).hexdigest()
                key = f"{source}-{digest[:16]}"
                meta: dict[str, object] = {"source": source, "modality": modality, "number": number}
                meta |= {"raw_path": f"{number}.jpg", "raw_frame": "", "licence": "CC0-1.0"}
                placement = writer.add(Sample(key=key, extension="jpg", image=image, meta=meta))
                header = read_header(image)
                components = header.components if isinstance(header, ImageHeader) else 3  # of a damaged image
                placed.append((key, digest, number, placement, components))
            shard = writer.close()
            name = shard_path(source, modality, shard.sha256)
            dataset.store.put_if_absent(name, shard.path)
            rows += [
                {
                    "key": key,
                    "source": source,
                    "modality": modality,
                    "anatomy": "",
                    "group_id": f"group-{number // 4}",
                    "shard": name,
                    "shard_row": placement.shard_row,
                    "byte_offset": placement.byte_offset,
                    "byte_length": placement.byte_length,
                    "crc32c": placement.crc32c,
                    "extension": "jpg",
                    "width": 80,
                    "height": 64,
                    "channels": components,
                    "pixel_sha256": digest,
                    "raw_path": f"{number}.jpg",
                    "raw_frame": "",
                    "licence": "CC0-1.0",
                    "bit_depth": 8,
                    "window_center": float("nan"),
                    "window_width": float("nan"),
                    "job_id": job_id or f"{source}-{modality}",
                    **(row or {}),
                }
                for key, digest, number, placement, components in placed
            ]
    dataset.commit(
        job_id=job_id or f"{source}-{modality}",
        rows=pa.Table.from_pylist(rows, schema=index_schema()),
        rejects=rejects_schema().empty_table(),
        summary={"source": source, "kept": len(rows), "items": len(rows), "rejected": 0},
    )
    return [row["key"] for row in rows]


def small_dataset(url: Path | str) -> Dataset:
    """120 images of three modalities in nine shards."""
    dataset = Dataset.create(str(url))
    add_source(dataset, "alpha", "CT", [jpeg(n) for n in range(60)])
    add_source(dataset, "beta", "US", [jpeg(n) for n in range(60, 100)])
    add_source(dataset, "gamma", "Fundus", [jpeg(n, gray=True) for n in range(100, 120)])
    return dataset


def commit_rows(dataset: Dataset, job: str, given: list[dict[str, Any]]) -> None:
    """Commit rows of the index without images; what is not given is zero, empty or null, and each has its own place."""
    blank = {field.name: 0 if pa.types.is_integer(field.type) else "" for field in index_schema()}
    blank |= {"window_center": 0.0, "window_width": 0.0, "burned_in": None, "burned_in_by": None}
    rows = [
        {
            **blank,
            **row,
            "key": f"{job}-{number}-{row.get('key', '')}",
            "pixel_sha256": hashlib.sha256(f"{job} {number}".encode()).hexdigest(),
            "shard": f"shards/{row['source']}/{row['modality'].lower()}/{job}-{row.get('shard', 0)}.tar",
            "shard_row": number * 7 % 211,
            "job_id": job,
        }
        for number, row in enumerate(given)
    ]
    table = pa.Table.from_pylist(rows, schema=index_schema())
    dataset.commit(job_id=job, rows=table, rejects=rejects_schema().empty_table())
