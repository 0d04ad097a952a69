"""A run whose folder lies on object storage: nodes share no file system, and a run goes on wherever it is started.

    <url>/checkpoints/...              copies of the checkpoints, and the lease (see `train.checkpoint`)
    <url>/metrics/00001000.jsonl       all lines of `metrics.jsonl` up to that checkpoint; the newest file alone is kept
    <url>/recipe.yaml, <url>/export/   when the run is finished

Each node works in a local folder; what is there is only ever a copy, or not yet complete.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from shards.errors import AlreadyExistsError
from shards.files import write_bytes
from shards.store import Store, join_url, open_store
from train.output import writing

__all__ = ["RemoteFolder", "is_remote", "upload_folder"]

_METRICS = re.compile(r"metrics/(\d+)\.jsonl")


def is_remote(out: str) -> bool:
    """Whether a run's folder is a URL."""
    return "://" in out and not out.startswith("file://")


class RemoteFolder:
    """The folder of a run on a store.

    Args:
        url: Of the run.

    Attributes:
        local: This node's working folder.
        checkpoints: URL of the checkpoints' copies.
    """

    def __init__(self, url: str) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        self.local = cache / "biovfm" / "runs" / hashlib.sha256(url.encode()).hexdigest()[:16]
        self.checkpoints = join_url(url, "checkpoints")
        self._store = open_store(url)

    def fetch_metrics(self) -> None:
        """Take the lines that another node wrote, where they go on longer than those here.

        Raises:
            StoreError: The store cannot be read, or the disk is full.
        """
        newest = self._newest_metrics()
        if newest is None:
            return
        lines = self._store.read(newest)
        path = self.local / "metrics.jsonl"
        here = path.read_bytes() if path.is_file() else b""
        if len(lines.splitlines()) > len(here.splitlines()):
            with writing(path):
                write_bytes(path, lines)

    def keep_metrics(self, step: int) -> None:
        """Copy the lines so far, before the checkpoint of `step` is complete.

        Raises:
            StoreError: The store cannot be written.
        """
        path = self.local / "metrics.jsonl"
        if not path.is_file():
            return
        name = f"metrics/{step:08d}.jsonl"
        _replace(self._store, name, path)
        older = [item.path for item in self._store.list("metrics/") if item.path < name]
        if older:
            self._store.delete(older)

    def finish(self) -> None:
        """Copy the recipe and the exported backbone.

        Raises:
            StoreError: The store cannot be written.
        """
        upload_folder(self._store, self.local / "export", below="export/")
        if (self.local / "recipe.yaml").is_file():
            _replace(self._store, "recipe.yaml", self.local / "recipe.yaml")

    def _newest_metrics(self) -> str | None:
        names = [item.path for item in self._store.list("metrics/") if _METRICS.fullmatch(item.path)]
        return max(names, default=None)


def upload_folder(store: Store, folder: Path, *, below: str = "") -> None:
    """Copy an exported backbone; `config.json`, which a reader opens first, comes last.

    Raises:
        StoreError: The store cannot be written.
    """
    files = (path for path in folder.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: (path.name == "config.json", path)):
        _replace(store, below + path.relative_to(folder).as_posix(), path)


def _replace(store: Store, name: str, path: Path) -> None:
    try:
        store.put_if_absent(name, path)
    except AlreadyExistsError:
        store.delete([name])
        store.put_if_absent(name, path)
