"""Blocks of remote shards, kept under a byte budget: in memory, or as files that the next run finds again.

A cache on disk writes one file a block, under a temporary name and then renamed, so a killed process leaves whole
blocks and at worst a temporary file that a later start removes. Only names that the cache itself makes are ever counted
or deleted: whatever else lies in the folder is left alone. What comes out of a cache is checked by the reader against
the index, like any other read.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Protocol

from shards.errors import ConfigError, StoreError

BLOCK_BYTES = 1 << 20
"""Bytes of a block, one request. Larger ones hide more latency, but every open window of every lane keeps up to two
blocks more than it needs: with 64 lanes 8 MiB blocks hold half a gigabyte more than 1 MiB ones."""

BlockId = tuple[str, int]
"""Shard path and block number."""

_NAME = re.compile(r"[0-9a-f]{40}-\d+\.block")
_PARTIAL = re.compile(r"\.partial-biovfm-\w+")
_PARTIAL_AGE_SECONDS = 3600


class Blocks(Protocol):
    """Keeps blocks, up to `budget_bytes` of them.

    Attributes:
        budget_bytes: Bytes to keep at most.
        outlives_use: Whether blocks are kept for the next run, also after all their samples were read.
    """

    budget_bytes: int
    outlives_use: bool

    def has(self, block: BlockId) -> bool:
        """Whether a block is at hand."""
        ...

    def read(self, block: BlockId, start: int, length: int) -> bytes | None:
        """Bytes of a block, None where it is not at hand (any more)."""
        ...

    def put(self, block: BlockId, data: bytes) -> None:
        """Keep a block, letting go of the least recently used ones."""
        ...

    def drop(self, block: BlockId) -> None:
        """Forget a block."""
        ...


class MemoryBlocks:
    """Blocks in memory.

    Args:
        budget_bytes: Bytes to keep at most.
    """

    outlives_use = False

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self._blocks: OrderedDict[BlockId, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, block: BlockId) -> bool:
        """Whether a block is at hand."""
        return block in self._blocks

    def read(self, block: BlockId, start: int, length: int) -> bytes | None:
        """Bytes of a block, None where it is not at hand."""
        with self._lock:
            data = self._blocks.get(block)
            if data is None:
                return None
            self._blocks.move_to_end(block)
        return data[start : start + length]

    def put(self, block: BlockId, data: bytes) -> None:
        """Keep a block."""
        with self._lock:
            self._forget(block)
            self._blocks[block] = data
            self.size_bytes += len(data)
            while self.size_bytes > self.budget_bytes and self._blocks:
                self._forget(next(iter(self._blocks)))

    def drop(self, block: BlockId) -> None:
        """Forget a block."""
        with self._lock:
            self._forget(block)

    def _forget(self, block: BlockId) -> None:
        data = self._blocks.pop(block, None)
        self.size_bytes -= len(data) if data is not None else 0


class DiskBlocks:
    """Blocks as files in a folder that several processes may share.

    Args:
        folder: The folder; made where needed.
        budget_bytes: Bytes to keep at most.
        origin: URL of the dataset, part of each block's name.

    Raises:
        ConfigError: The folder cannot be written.
    """

    outlives_use = True

    def __init__(self, folder: Path, budget_bytes: int, *, origin: str) -> None:
        self.folder = folder
        self.budget_bytes = budget_bytes
        self._origin = origin
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._adopt()
        except OSError as error:
            raise ConfigError(
                f"cannot use {folder} as a cache: {error.strerror}", hint="choose another folder"
            ) from error

    @property
    def size_bytes(self) -> int:
        """Bytes that the cache believes to keep."""
        with self._lock:
            return sum(self._sizes.values())

    def has(self, block: BlockId) -> bool:
        """Whether a block is at hand."""
        return self._name(block) in self._sizes

    def read(self, block: BlockId, start: int, length: int) -> bytes | None:
        """Bytes of a block, None where it is not at hand."""
        name = self._name(block)
        try:
            with (self.folder / name).open("rb") as stream:
                data = os.pread(stream.fileno(), length, start)
        except OSError:
            with self._lock:
                self._sizes.pop(name, None)
            return None
        with self._lock:
            if name in self._sizes:
                self._sizes.move_to_end(name)
        return data

    def put(self, block: BlockId, data: bytes) -> None:
        """Keep a block; a full disk is an error that names the folder."""
        name = self._name(block)
        handle, partial = tempfile.mkstemp(prefix=".partial-biovfm-", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            Path(partial).replace(self.folder / name)
        except OSError as error:
            raise StoreError(
                f"cannot write to the cache {self.folder}: {error.strerror}", hint="free some space or lower its budget"
            ) from error
        finally:
            Path(partial).unlink(missing_ok=True)
        with self._lock:
            self._sizes[name] = len(data)
            self._sizes.move_to_end(name)
            self._trim()

    def drop(self, block: BlockId) -> None:
        """Forget a block."""
        with self._lock:
            self._remove(self._name(block))

    def _name(self, block: BlockId) -> str:
        shard, number = block
        return f"{hashlib.sha1(f'{self._origin}/{shard}'.encode()).hexdigest()}-{number}.block"  # noqa: S324 - a name

    def _adopt(self) -> None:
        ours = []
        for file in self.folder.iterdir():
            if _NAME.fullmatch(file.name):
                facts = file.stat()
                ours.append((facts.st_mtime, file.name, facts.st_size))
            elif _PARTIAL.fullmatch(file.name) and time.time() - file.stat().st_mtime > _PARTIAL_AGE_SECONDS:
                file.unlink(missing_ok=True)
        self._sizes.update((name, size) for _, name, size in sorted(ours))
        self._trim()

    def _trim(self) -> None:
        total = sum(self._sizes.values())
        while total > self.budget_bytes and self._sizes:
            name = next(iter(self._sizes))
            total -= self._sizes[name]
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._sizes.pop(name, None)
        (self.folder / name).unlink(missing_ok=True)
