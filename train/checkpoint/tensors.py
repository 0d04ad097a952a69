"""The tensor files of a checkpoint and their index, without any pickle.

`torch.distributed.checkpoint` describes its tensor files in `.metadata`, a pickle. Here that file is JSON:

    {"format": 1, "tensors": {"method.network.norm.weight": {"dtype": "float32", "shape": [64], "chunks": [
        {"offsets": [0], "sizes": [64], "file": "__0_0.distcp", "start": 0, "length": 1408}]}}}

Pickles of earlier releases are read by an unpickler that knows nothing but the few classes of that description.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch
from torch.distributed.checkpoint import metadata
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter, _StorageInfo
from torch.distributed.checkpoint.storage import WriteResult

__all__ = ["INDEX", "DamageError", "TensorReader", "TensorWriter", "check_chunks", "file_sums", "read_index"]

INDEX = ".metadata"
_FORMAT = 1


class DamageError(Exception):
    """Bytes of a checkpoint are not those that were written; the message says which, without the folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One rectangular part of a tensor, as `torch.save` wrote it.

    Attributes:
        offsets: Where the part begins, per dimension.
        sizes: Its shape.
        file: Name of the file in the checkpoint's folder.
        start: First byte in that file.
        length: Bytes.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    start: int
    length: int

    def __post_init__(self) -> None:
        numbers = (*self.offsets, *self.sizes, self.start, self.length)
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError("a place in the file is no number")
        if not isinstance(self.file, str) or PurePosixPath(self.file).name != self.file or self.file in {"", ".."}:
            raise ValueError(f"the file name {self.file!r} leaves the folder")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """Where a tensor lies.

    Attributes:
        dtype: Name of the torch dtype, such as `float32`.
        shape: Of the whole tensor.
        chunks: Its parts.
    """

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


class TensorWriter(FileSystemWriter):
    """Writes tensor files as torch does, and their index as JSON."""

    def finish(self, metadata: metadata.Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index; called on one rank when the files of all ranks are complete."""
        places = {result.index: result.storage_data for of_rank in results for result in of_rank}
        text = json.dumps({"format": _FORMAT, "tensors": _as_json(_entries(metadata.state_dict_metadata, places))})
        path = Path(self.path) / INDEX
        with path.open("w", encoding="utf-8") as stream:
            stream.write(text + "\n")
            stream.flush()
            os.fsync(stream.fileno())


class TensorReader(FileSystemReader):
    """Reads tensor files by an index of either kind; nothing but tensors is accepted."""

    def read_metadata(self, *_: Any, **__: Any) -> metadata.Metadata:
        """The index in torch's classes."""
        return _as_metadata(read_index(Path(self.path)))


def read_index(folder: Path) -> dict[str, TensorEntry]:
    """Tensor name → where it lies.

    Raises:
        DamageError: The index is missing, cut, or describes something else than tensors in this folder.
        OSError: The machine cannot read it now.
    """
    try:
        data = (folder / INDEX).read_bytes()
    except FileNotFoundError:
        raise DamageError(f"{INDEX} is missing") from None
    try:
        return _from_json(json.loads(data)) if data[:1] == b"{" else _from_pickle(data)
    except DamageError:
        raise
    except Exception as error:
        raise DamageError(f"{INDEX} cannot be read ({type(error).__name__})") from error


def check_chunks(folder: Path, *, files: Iterable[str] | None = None) -> None:
    """Check every stored tensor by the CRC-32 sums inside of its file: what an earlier release left to check.

    Raises:
        DamageError: A file is missing or cut, or a sum differs.
        OSError: The machine cannot read it now.
    """
    wanted = None if files is None else set(files)
    for name, entry in read_index(folder).items():
        for chunk in entry.chunks:
            if wanted is None or chunk.file in wanted:
                _check_chunk(folder, name, chunk)


def file_sums(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """`{name: {"bytes": ..., "sha256": ...}}` of some files of a folder."""
    sums = {}
    for name in sorted(names):
        with (folder / name).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            sums[name] = {"bytes": stream.tell(), "sha256": digest}
    return sums


def _check_chunk(folder: Path, name: str, chunk: Chunk) -> None:
    try:
        with (folder / chunk.file).open("rb") as stream:
            stream.seek(chunk.start)
            data = stream.read(chunk.length)
    except FileNotFoundError:
        raise DamageError(f"{chunk.file} is missing") from None
    if len(data) != chunk.length:
        raise DamageError(f"{chunk.file} is cut: {name} ends {chunk.length - len(data):,} bytes after its end")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            bad = archive.testzip()
    # zipfile raises NotImplementedError where damage has named a compression that it does not know
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, OSError) as error:
        raise DamageError(f"{name} in {chunk.file} cannot be read ({type(error).__name__})") from error
    if bad is not None:
        raise DamageError(f"{name} in {chunk.file} has another checksum")


def _entries(
    tensors: Mapping[str, metadata.STORAGE_TYPES], places: Mapping[metadata.MetadataIndex, Any]
) -> dict[str, TensorEntry]:
    entries = {}
    for name, described in tensors.items():
        if not isinstance(described, metadata.TensorStorageMetadata):
            raise DamageError(f"{name} is no tensor")
        chunks = []
        for part in described.chunks:
            place = places[metadata.MetadataIndex(name, part.offsets)]
            if place.transform_descriptors:
                raise DamageError(f"{name} is stored in a way that this release does not read")
            chunks.append(
                Chunk(
                    offsets=tuple(part.offsets),
                    sizes=tuple(part.sizes),
                    file=place.relative_path,
                    start=place.offset,
                    length=place.length,
                )
            )
        dtype = str(described.properties.dtype).removeprefix("torch.")
        entries[name] = TensorEntry(dtype=dtype, shape=tuple(described.size), chunks=tuple(chunks))
    return entries


def _as_json(entries: Mapping[str, TensorEntry]) -> dict[str, Any]:
    return {name: asdict(entry) for name, entry in entries.items()}


def _from_json(document: Mapping[str, Any]) -> dict[str, TensorEntry]:
    if document["format"] != _FORMAT:
        raise DamageError(f"{INDEX} has format {document['format']}, this release reads {_FORMAT}")
    return {
        name: TensorEntry(
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            chunks=tuple(
                Chunk(**{**chunk, "offsets": tuple(chunk["offsets"]), "sizes": tuple(chunk["sizes"])})
                for chunk in entry["chunks"]
            ),
        )
        for name, entry in document["tensors"].items()
    }


def _from_pickle(data: bytes) -> dict[str, TensorEntry]:
    described = _IndexUnpickler(io.BytesIO(data)).load()
    if not isinstance(described, metadata.Metadata):
        raise DamageError(f"{INDEX} is no description of tensors")
    return _entries(described.state_dict_metadata, described.storage_data)


def _as_metadata(entries: Mapping[str, TensorEntry]) -> metadata.Metadata:
    tensors: dict[str, metadata.STORAGE_TYPES] = {}
    places = {}
    for name, entry in entries.items():
        dtype = getattr(torch, entry.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise DamageError(f"{name} has the unknown dtype {entry.dtype!r}")
        chunks = []
        for chunk in entry.chunks:
            part = metadata.ChunkStorageMetadata(torch.Size(chunk.offsets), torch.Size(chunk.sizes))
            places[metadata.MetadataIndex(name, part.offsets)] = _StorageInfo(chunk.file, chunk.start, chunk.length)
            chunks.append(part)
        properties = metadata.TensorProperties(dtype=dtype)
        tensors[name] = metadata.TensorStorageMetadata(properties, torch.Size(entry.shape), chunks)
    return metadata.Metadata(state_dict_metadata=tensors, storage_data=places, storage_meta=metadata.StorageMeta())


class _IndexUnpickler(pickle.Unpickler):
    """Knows the classes of torch's description of tensors and refuses every other name."""

    _CLASSES: ClassVar[frozenset[str]] = frozenset(
        {
            "Metadata",
            "TensorStorageMetadata",
            "ChunkStorageMetadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "_MEM_FORMAT_ENCODING",
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch.distributed.checkpoint.metadata" and name in self._CLASSES:
            return getattr(metadata, name)
        if (module, name) == ("torch.distributed.checkpoint.filesystem", "_StorageInfo"):
            return _StorageInfo
        if (module, name) == ("torch.serialization", "_get_layout"):
            return _layout
        if module.partition(".")[0] == "pathlib":  # where the checkpoint lay when it was written: of no use
            return _forget
        if module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        raise DamageError(f"{INDEX} names {module}.{name}, which has no place in it")


def _layout(_name: str) -> torch.layout:
    return torch.strided


def _forget(*_: str) -> None:
    return None
