"""The corpus in the formats that need nothing but our own packages; each written once."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from infra.bench.peers.corpus import Corpus
from shards.dataset.dataset import Dataset
from shards.dataset.shard_file import Sample, ShardWriter, shard_path
from shards.files import write_text
from shards.schema import index_schema, rejects_schema

SHARD_BYTES: Final = 64 << 20
_SOURCE: Final = "bench"
_CLASSES: Final = 8


def written(corpus: Corpus, name: str) -> Path:
    """The folder of a format, written where it is not there yet."""
    folder = corpus.folder / name
    if not folder.exists():
        partial = corpus.folder / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        FORMATS[name](corpus, partial)
        partial.rename(folder)
    return folder


def label_of(key: str) -> int:
    """A made-up class: loaders for labelled images want one."""
    return int(key) % _CLASSES


def _shards(corpus: Corpus, folder: Path) -> None:
    dataset = Dataset.create(str(folder))
    rows: list[dict[str, Any]] = []
    for number, samples in enumerate(_by_size(corpus)):
        writer = ShardWriter(folder / f"{number}.partial")
        placed = [
            writer.add(Sample(key=f"{_SOURCE}-{key}", extension="jpg", image=image, meta={"label": label_of(key)}))
            for key, image in samples
        ]
        shard = writer.close()
        path = shard_path(_SOURCE, "Microscopy", shard.sha256)
        dataset.store.put_if_absent(path, shard.path)
        shard.path.unlink()
        for (key, image), place in zip(samples, placed, strict=True):
            rows.append(
                _row(key, image)
                | {
                    "shard": path,
                    "shard_row": place.shard_row,
                    "byte_offset": place.byte_offset,
                    "byte_length": place.byte_length,
                    "crc32c": place.crc32c,
                }
            )
    dataset.commit(
        job_id="bench",
        rows=pa.Table.from_pylist(rows, schema=index_schema()),
        rejects=rejects_schema().empty_table(),
        summary={"source": _SOURCE, "kept": len(rows), "items": len(rows), "rejected": 0},
    )


def _row(key: str, image: bytes) -> dict[str, Any]:
    return {
        "key": f"{_SOURCE}-{key}",
        "source": _SOURCE,
        "modality": "Microscopy",
        "anatomy": "",
        "group_id": key,
        "extension": "jpg",
        "width": 0,
        "height": 0,
        "channels": 3,
        "pixel_sha256": hashlib.sha256(image).hexdigest(),
        "raw_path": f"{key}.jpg",
        "raw_frame": "",
        "licence": "CC0-1.0",
        "bit_depth": 8,
        "window_center": float("nan"),
        "window_width": float("nan"),
        "job_id": "bench",
    }


def _by_size(corpus: Corpus) -> list[list[tuple[str, bytes]]]:
    """The samples of each shard."""
    shards: list[list[tuple[str, bytes]]] = [[]]
    size = 0
    for key, image in corpus:
        if size and size + len(image) > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((key, image))
        size += len(image)
    return shards


def _files(corpus: Corpus, folder: Path) -> None:
    for number in range(_CLASSES):
        (folder / f"class{number}").mkdir()
    for key, image in corpus:
        (folder / f"class{label_of(key)}" / f"{key}.jpg").write_bytes(image)


def _tars(corpus: Corpus, folder: Path) -> None:
    """WebDataset tars, each with DALI's index beside it (version 1.2: extension, offset, size and name of members)."""
    for number, samples in enumerate(_by_size(corpus)):
        lines = [f"v1.2 {len(samples)}"]
        with tarfile.open(folder / f"{number:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for key, image in samples:
                parts = []
                for extension, data in (("jpg", image), ("cls", str(label_of(key)).encode())):
                    info = tarfile.TarInfo(f"{key}.{extension}")
                    info.size = len(data)
                    start = archive.offset + tarfile.BLOCKSIZE
                    archive.addfile(info, BytesIO(data))
                    parts.append(f"{extension} {start} {len(data)} {info.name}")
                lines.append(" ".join(parts))
        write_text(folder / f"{number:05d}.idx", "\n".join(lines) + "\n")


def _parquet(corpus: Corpus, folder: Path) -> None:
    """Image columns as `datasets` writes them: a struct of bytes and path, a hundred rows a group."""
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema({"image": image, "label": pa.int64()})
    for number, samples in enumerate(_by_size(corpus)):
        columns = {
            "image": [{"bytes": data, "path": f"{key}.jpg"} for key, data in samples],
            "label": [label_of(key) for key, _ in samples],
        }
        table = pa.Table.from_pydict(columns, schema=schema)
        pq.write_table(table, folder / f"{number:05d}.parquet", row_group_size=100, compression="none")


FORMATS: Final[dict[str, Callable[[Corpus, Path], None]]] = {
    "shards": _shards,
    "files": _files,
    "tars": _tars,
    "parquet": _parquet,
}
