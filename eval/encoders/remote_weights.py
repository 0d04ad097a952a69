"""Backbones on object storage: the few files of one are copied to this machine for as long as the process runs."""

from __future__ import annotations

import atexit
import json
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from shards.errors import CheckpointError, NotFoundError
from shards.store import Store, open_store

__all__ = ["fetch_file", "fetch_folder", "is_remote"]

_READ = (".json", ".safetensors")
"""What is read of a backbone's folder; pickled weights are left where they are."""
_CONFIGS = ("config.json", "open_clip_config.json")


def is_remote(spec: str) -> bool:
    """Whether a backbone is named by the URL of a store."""
    return "://" in spec


def fetch_folder(url: str) -> Path:
    """A local copy of a run's export, or of a folder that timm, Hugging Face or OpenCLIP wrote.

    Raises:
        CheckpointError: There is none.
        StoreError: The store cannot be read.
    """
    return _folder(url)


def fetch_file(url: str) -> Path:
    """A local copy of one file.

    Raises:
        CheckpointError: There is none.
        StoreError: The store cannot be read.
    """
    folder, _, name = url.rpartition("/")
    return _file(folder, name)


_kept = ExitStack()
"""Holds the copies until the process ends."""
atexit.register(_kept.close)


def _new_folder() -> Path:
    return Path(_kept.enter_context(TemporaryDirectory(prefix="biovfm-weights-")))


@cache
def _file(url: str, name: str) -> Path:
    try:
        data = open_store(url).read(name)
    except NotFoundError:
        raise CheckpointError(f"there is no {url}/{name}", hint="give a run, its export, or its weights") from None
    path = _new_folder() / name
    path.write_bytes(data)
    return path


@cache
def _folder(url: str) -> Path:
    """The folder as it lies on the store: of a run, `export/` and what its checkpoint says of itself."""
    store = open_store(url)
    exported = [item.path for item in store.list("export/")]
    names = exported or _files_of(store)
    folder = _new_folder()
    for name in (name for name in names if name.endswith(_READ)):
        _copy(store, name, folder)
    if exported:
        _copy_record(store, folder)
    return folder


def _files_of(store: Store) -> list[str]:
    """The files of a folder that is no run."""
    if not any(_holds(store, name) for name in _CONFIGS):
        hint = f"of a run, `biovfm export {store.url}` writes it"
        raise CheckpointError(f"{store.url} holds neither an export nor a config.json", hint=hint)
    return [item.path for item in store.list() if "/" not in item.path]


def _holds(store: Store, name: str) -> bool:
    try:
        store.stat(name)
    except NotFoundError:
        return False
    return True


def _copy(store: Store, name: str, folder: Path) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(store.read(name))


def _copy_record(store: Store, folder: Path) -> None:
    """Copy `meta.json` of the checkpoint that was exported, where it is still there."""
    try:
        config = json.loads((folder / "export" / "config.json").read_text(encoding="utf-8"))
        _copy(store, f"checkpoints/step-{config['biovfm']['step']:08d}/meta.json", folder)
    except (FileNotFoundError, ValueError, KeyError, TypeError, NotFoundError):
        return
