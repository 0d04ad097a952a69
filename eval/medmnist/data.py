"""Load one MedMNIST task: images and labels of its three splits, from wherever they lie.

Places are tried in this order: an explicit `.npz`, a folder, object storage, the medmnist package's cache
(`$BIOVFM_MEDMNIST_ROOT`, else `~/.medmnist`), and, where the network allows, a download through that package.
Archives are read without pickle. A member that is stored uncompressed is memory-mapped; a compressed one above
`_IN_MEMORY_BYTES` is unpacked once beside the feature cache and mapped, so a 13 GB task needs no 13 GB of memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from eval.medmnist.tasks import IMAGE_SIZES_PX, TASKS, Kind, TaskInfo
from shards.errors import ConfigError, NotFoundError, SourceError, TaskNotFoundError

SPLITS: Final = ("train", "val", "test")
SplitName = Literal["train", "val", "test"]
_IN_MEMORY_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Images and labels of one split.

    Attributes:
        images: (N, H, W) or (N, H, W, 3) uint8; may be memory-mapped.
        labels: (N, 1) class numbers, or (N, L) zeros and ones in multi-label tasks; int64.
        groups: (N,) number of the group (patient) of each image; None where every image stands for itself.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.images)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One task, loaded.

    Attributes:
        name: MedMNIST's flag, e.g. `breastmnist`.
        kind: One of MedMNIST's four kinds.
        size_px: Edge of the images.
        class_names: One name a class, or a label in multi-label tasks.
        train: The training split.
        val: The validation split.
        test: The test split.
        origin: Path or URL of the archive that was read.
        digest: Names, sizes and CRC-32 of the archive's members as one hex digest; equal for equal contents.
    """

    name: str
    kind: Kind
    size_px: int
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    origin: str
    digest: str

    @property
    def num_classes(self) -> int:
        """Classes, or labels in multi-label tasks."""
        return len(self.class_names)

    def split(self, name: SplitName) -> Split:
        """The split of that name."""
        splits: dict[SplitName, Split] = {"train": self.train, "val": self.val, "test": self.test}
        return splits[name]


def task_names(text: str | Iterable[str]) -> list[str]:
    """The tasks that a user asked for: `all`, or names with or without `mnist`, separated by commas.

    Raises:
        ConfigError: A name is no task; the nearest one is named.
    """
    import difflib

    words = text.split(",") if isinstance(text, str) else list(text)
    names: list[str] = []
    for word in (raw.strip().lower() for raw in words):
        if word == "all":
            names += TASKS
            continue
        name = word if word in TASKS else f"{word}mnist"
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
            raise ConfigError(f"no MedMNIST task {word!r}", hint=f"did you mean {near}? `all` takes the twelve")
        names.append(name)
    return list(dict.fromkeys(names))


def medmnist_cache() -> Path:
    """The folder where archives are looked for when none is given."""
    return Path(os.environ.get("BIOVFM_MEDMNIST_ROOT") or Path.home() / ".medmnist").expanduser()


def archive_name(name: str, size_px: int) -> str:
    """The file name that MedMNIST gives to a task's archive."""
    return f"{name}.npz" if size_px == IMAGE_SIZES_PX[0] else f"{name}_{size_px}.npz"


def load_task(name: str, *, size: int = 28, root: Path | str | None = None, download: bool = True) -> Task:
    """Load one task.

    Args:
        name: MedMNIST's flag, e.g. `breastmnist`.
        size: Edge of the images in px: 28, 64, 128 or 224.
        root: A folder that holds `<name>[_<size>].npz`, one such file, or a URL of either; None looks into the
            medmnist cache.
        download: With no `root`, fetch a missing archive through the medmnist package.

    Raises:
        ConfigError: No task of that name or size.
        TaskNotFoundError: The archive is nowhere; the hint says how to get it.
        SourceError: The archive is not what MedMNIST publishes under that name.
    """
    info = TASKS[task_names([name])[0]]
    path, origin = find_archive(name, size=size, root=root, download=download)
    try:
        splits = {split: _read_split(path, split) for split in SPLITS}
        digest = _digest(path)
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{origin} is no MedMNIST archive: {error}", hint="download it again") from error
    for split, loaded in splits.items():
        _check(info, size, split, loaded, origin)
    return Task(
        name=info.name,
        kind=info.kind,
        size_px=size,
        class_names=info.class_names,
        origin=origin,
        digest=digest,
        **splits,
    )


def find_archive(
    name: str, *, size: int = 28, root: Path | str | None = None, download: bool = True
) -> tuple[Path, str]:
    """The local archive of a task, fetched where it is elsewhere, and the place that it came from.

    Args:
        name: As in `load_task`.
        size: As in `load_task`.
        root: As in `load_task`.
        download: As in `load_task`.

    Raises:
        ConfigError: No task of that name or size.
        TaskNotFoundError: The archive is nowhere; the hint says how to get it.
    """
    info = TASKS[task_names([name])[0]]
    if size not in IMAGE_SIZES_PX:
        raise ConfigError(f"MedMNIST has no {size} px images", hint=f"sizes: {', '.join(map(str, IMAGE_SIZES_PX))}")
    file_name = archive_name(info.name, size)
    if root is not None and "://" in str(root):
        return _fetch(str(root), file_name)
    place = medmnist_cache() if root is None else Path(root).expanduser()
    path = place if place.suffix == ".npz" else place / file_name
    if path.is_file():
        return path, str(path)
    if root is None and download and _download(info, size, place):
        return path, str(path)
    there = [px for px in IMAGE_SIZES_PX if (place / archive_name(info.name, px)).is_file()]
    raise _missing(file_name, str(place), other_sizes_px=there)


def _missing(file_name: str, place: str, *, other_sizes_px: Sequence[int] = ()) -> TaskNotFoundError:
    where = "https://zenodo.org/records/10519652"
    hint = f"download it from {where} into a folder and pass --data FOLDER, or skip it with --skip-missing"
    if other_sizes_px:
        hint += f"; for the archive that is there pass --size {max(other_sizes_px)}"
    return TaskNotFoundError(f"{file_name} is not in {place}", hint=hint)


def _fetch(url: str, file_name: str) -> tuple[Path, str]:
    """Copy an archive from object storage into the cache, once."""
    from shards.store import open_store

    folder, name = url.rsplit("/", 1) if url.endswith(".npz") else (url.rstrip("/"), file_name)
    local = medmnist_cache() / "remote" / hashlib.sha256(folder.encode()).hexdigest()[:16] / name
    if local.is_file():
        return local, f"{folder}/{name}"
    try:
        data = open_store(folder).open_stream(name)
    except NotFoundError as error:
        raise _missing(name, folder) from error
    local.parent.mkdir(parents=True, exist_ok=True)
    partial = local.with_suffix(f".{os.getpid()}.partial")
    with data, partial.open("wb") as out:
        while block := data.read(1 << 22):
            out.write(block)
    partial.replace(local)
    return local, f"{folder}/{name}"


def _download(info: TaskInfo, size: int, place: Path) -> bool:
    """Let the medmnist package fetch the archive; False where it cannot."""
    try:
        import medmnist
    except ImportError:
        return False
    place.mkdir(parents=True, exist_ok=True)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            getattr(medmnist, info.title)(split="test", root=str(place), size=size, download=True)
    except (RuntimeError, OSError) as error:
        raise TaskNotFoundError(
            f"{archive_name(info.name, size)} is not in {place} and could not be downloaded ({_last_line(error)})",
            hint="pass --data FOLDER with the archive from https://zenodo.org/records/10519652",
        ) from error
    return True


def _last_line(error: Exception) -> str:
    lines = str(error.__cause__ or error.__context__ or error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _read_split(path: Path, split: SplitName | str) -> Split:
    labels = _member(path, f"{split}_labels")
    return Split(
        images=_member(path, f"{split}_images"),
        labels=np.ascontiguousarray(labels.reshape(len(labels), -1 if labels.size else 1), dtype=np.int64),
    )


def _member(path: Path, name: str) -> npt.NDArray[Any]:
    """One array of the archive, memory-mapped where that saves memory."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
        if info.compress_type == zipfile.ZIP_STORED:
            return _map_stored(path, archive, info)
        if info.file_size > _IN_MEMORY_BYTES:
            return _map_unpacked(path, archive, info)
    with np.load(path, allow_pickle=False) as arrays:
        loaded: npt.NDArray[Any] = arrays[name]
        return loaded


def _map_stored(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Map an uncompressed member where it lies in the archive."""
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(member)
        header_bytes = member.tell()
    with path.open("rb") as raw:
        raw.seek(info.header_offset + 26)
        name_bytes, extra_bytes = (int.from_bytes(raw.read(2), "little") for _ in range(2))
    offset = info.header_offset + 30 + name_bytes + extra_bytes + header_bytes
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")


def _map_unpacked(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    """Unpack a large compressed member next to its archive, once, and map it."""
    unpacked = path.with_name(f"{path.stem}.{info.CRC:08x}.{info.filename}")
    if not unpacked.is_file():
        partial = unpacked.with_suffix(f".{os.getpid()}.partial")
        with archive.open(info) as member, partial.open("wb") as out:
            while block := member.read(1 << 22):
                out.write(block)
        partial.replace(unpacked)
    mapped: npt.NDArray[Any] = np.load(unpacked, mmap_mode="r", allow_pickle=False)
    return mapped


def _digest(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        members = sorted((info.filename, info.file_size, info.CRC) for info in archive.infolist())
    return hashlib.sha256(repr(members).encode()).hexdigest()


def _check(info: TaskInfo, size: int, split: str, loaded: Split, origin: str) -> None:
    shape = loaded.images.shape[1:]
    if loaded.images.dtype != np.uint8 or shape not in {(size, size), (size, size, 3)}:
        raise SourceError(
            f"{origin}: {split}_images is {loaded.images.dtype} {loaded.images.shape}, expected uint8 of {size} px",
            hint="give the archive's own --size",
        )
    if len(loaded.images) != len(loaded.labels):
        raise SourceError(f"{origin}: {len(loaded.images)} {split} images but {len(loaded.labels)} labels")
    highest = info.num_classes - 1 if loaded.labels.shape[1] == 1 else 1
    if len(loaded.labels) and not 0 <= loaded.labels.min() <= loaded.labels.max() <= highest:
        raise SourceError(f"{origin}: {split}_labels go beyond the {info.num_classes} classes of {info.name}")


__all__ = [
    "SPLITS",
    "Split",
    "Task",
    "archive_name",
    "find_archive",
    "load_task",
    "medmnist_cache",
    "task_names",
]
