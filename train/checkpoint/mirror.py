"""Copies of checkpoints on object storage. `meta.json` is written last, so an interrupted copy is never used."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from shards.errors import AlreadyExistsError, CheckpointError
from shards.store import Store
from train.checkpoint.record import META, Checkpoint, read_record
from train.checkpoint.tensors import DamageError

__all__ = ["fetch", "fetch_record", "mirrored_steps", "remove", "upload"]

_META = re.compile(r"step-(\d+)/meta\.json")


def mirrored_steps(store: Store) -> list[int]:
    """Steps of the whole copies, ascending."""
    found = (_META.fullmatch(item.path) for item in store.list("step-"))
    return sorted(int(match.group(1)) for match in found if match)


def upload(store: Store, folder: Path, name: str, files: list[Path]) -> None:
    """Copy some files of a checkpoint; what is there already (from an attempt that was cut off) is replaced.

    Args:
        store: Of the checkpoints.
        folder: Where the files lie now.
        name: Of the checkpoint, `step-…`.
        files: In it.
    """
    for path in files:
        target = f"{name}/{path.relative_to(folder)}"
        try:
            store.put_if_absent(target, path)
        except AlreadyExistsError:
            store.delete([target])
            store.put_if_absent(target, path)


def fetch(store: Store, folder: Path, step: int) -> None:
    """Replace a local checkpoint by its complete copy, if there is one; it appears by one rename."""
    if step not in mirrored_steps(store):
        return
    name = f"step-{step:08d}"
    temporary = folder / f".fetching-{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for item in store.list(f"{name}/"):
        (temporary / Path(item.path).name).write_bytes(store.read(item.path))
    shutil.rmtree(folder / name, ignore_errors=True)
    temporary.rename(folder / name)


def fetch_record(store: Store, step: int) -> Checkpoint:
    """The description of a copy.

    Raises:
        CheckpointError: It is damaged.
    """
    name = f"step-{step:08d}"
    with TemporaryDirectory() as folder:
        (Path(folder) / META).write_bytes(store.read(f"{name}/{META}"))
        try:
            return read_record(Path(folder))
        except DamageError as damage:
            raise CheckpointError(f"{store.url}/{name} is damaged: {damage}", hint="choose another step") from damage


def remove(store: Store, step: int) -> None:
    """Delete a copy, its `meta.json` first."""
    paths = [item.path for item in store.list(f"step-{step:08d}/")]
    store.delete(sorted(paths, key=lambda path: not path.endswith(META))[:1])
    store.delete(paths)
