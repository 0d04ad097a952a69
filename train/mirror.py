"""Checkpoints on object storage: a copy of each, `meta.json` last, so that a copy without it is none."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from shards.errors import AlreadyExistsError
from shards.store import Store

__all__ = ["fetch_newest", "mirrored_steps", "remove", "upload"]

META = "meta.json"
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


def fetch_newest(store: Store, folder: Path) -> None:
    """Bring the newest copy into the local folder, unless one as new is there; appears by one rename."""
    steps = mirrored_steps(store)
    if not steps:
        return
    name = f"step-{steps[-1]:08d}"
    there = sorted(path.name for path in folder.glob("step-*") if (path / META).is_file())
    if there and there[-1] >= name:
        return
    temporary = folder / f".fetching-{name}"
    shutil.rmtree(temporary, ignore_errors=True)
    for item in store.list(f"{name}/"):
        path = temporary / item.path.removeprefix(f"{name}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(item.path))
    shutil.rmtree(folder / name, ignore_errors=True)
    temporary.rename(folder / name)


def remove(store: Store, step: int) -> None:
    """Delete a copy, its `meta.json` first."""
    paths = [item.path for item in store.list(f"step-{step:08d}/")]
    store.delete(sorted(paths, key=lambda path: not path.endswith(META))[:1])
    store.delete(paths)
