"""Blocks of remote shards under a byte budget: in memory until they are read, or as files for the next run too.

In memory a block is cut into the pieces of its samples as soon as it is there, and each piece goes when it is read: the
samples of a window are read in random order, so a whole block would stay almost until the window closes.

A cache on disk writes one file a block, under a temporary name and then renamed, so a killed process leaves whole
blocks and at worst a temporary file that a later start removes. Only names that the cache itself makes are ever counted
or deleted: whatever else lies in the folder is left alone. What comes out of a cache is checked by the reader against
the index, like any other read.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shards.errors import ConfigError, StoreError

BLOCK_BYTES = 1 << 20
"""Bytes of a block, one request. Larger ones hide more latency, but every open window of every lane keeps up to two
blocks more than it needs: with 64 lanes 8 MiB blocks hold half a gigabyte more than 1 MiB ones."""

BlockId = tuple[str, int]
"""Shard path and block number."""

PiecesOf = Callable[[BlockId], Iterable[tuple[int, int]]]

_NAME = re.compile(r"[0-9a-f]{40}-\d+\.block")
_PARTIAL = re.compile(r"\.partial-biovfm-\w+")
_PARTIAL_AGE_SECONDS = 3600


class Claims(Protocol):
    """Who will take what of the blocks in memory, so that they are let go in time."""

    def unclaim(self, block: BlockId, start: int) -> None:
        """Take a claim back, once the piece was taken or could not be."""
        ...

    def forget_claims(self) -> None:
        """What was claimed will not be taken."""
        ...

    def forget_unread(self, *, now: int, lifetime: int) -> None:
        """Forget what was put `lifetime` ago and never taken, by a count whose value is `now`."""
        ...


class Blocks(Protocol):
    """Keeps blocks, up to `budget_bytes` of them.

    Attributes:
        budget_bytes: Bytes to keep at most.
        memory_bytes: Bytes in memory now.
    """

    budget_bytes: int

    @property
    def claims(self) -> Claims | None:
        """The claims on the blocks; None where blocks stay for the next run too."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes in memory now."""
        ...

    def claim(self, block: BlockId, start: int) -> bool:
        """Announce that the piece that begins at `start` of a block will be taken.

        Returns:
            Whether it is at hand for that; else the block has to be fetched and put.
        """
        ...

    def take(self, block: BlockId, start: int, length: int) -> bytes | None:
        """A piece of a block, None where it is not at hand (any more)."""
        ...

    def put(self, block: BlockId, data: bytes) -> None:
        """Keep a block, letting go of the oldest ones where there are too many."""
        ...

    def drop(self, block: BlockId) -> None:
        """Forget a block."""
        ...


@dataclass(slots=True)
class _Piece:
    data: bytes
    uses: int


@dataclass(slots=True)
class _Pieces:
    age: int
    pieces: dict[int, _Piece]

    @property
    def num_bytes(self) -> int:
        return sum(len(piece.data) for piece in self.pieces.values())


class MemoryBlocks:
    """Blocks in memory, as the pieces of their samples. Each time a block is put, each of its pieces can be taken once.

    Where one epoch ends and the next begins both may want the same block; so uses are counted, and claims on them.

    Args:
        budget_bytes: Bytes to keep at most.
        pieces_of: Start and length of the pieces to keep of a block.
    """

    def __init__(self, budget_bytes: int, pieces_of: PiecesOf) -> None:
        self.budget_bytes = budget_bytes
        self.memory_bytes = 0
        self._pieces_of = pieces_of
        self._blocks: OrderedDict[BlockId, _Pieces] = OrderedDict()
        self._claims: dict[tuple[BlockId, int], int] = {}
        self._now = 0
        self._lock = threading.Lock()

    @property
    def claims(self) -> MemoryBlocks:
        """This object: it counts them."""
        return self

    def claim(self, block: BlockId, start: int) -> bool:
        """Announce that a piece will be taken."""
        with self._lock:
            claims = self._claims.get((block, start), 0)
            self._claims[block, start] = claims + 1
            piece = self._piece(block, start)
            return piece is not None and piece.uses > claims

    def unclaim(self, block: BlockId, start: int) -> None:
        """Take a claim back, once the piece was taken or could not be."""
        with self._lock:
            claims = self._claims.pop((block, start), 0)
            if claims > 1:
                self._claims[block, start] = claims - 1

    def take(self, block: BlockId, start: int, length: int) -> bytes | None:  # noqa: ARG002 - the seam's signature
        """A piece of a block, which is no longer kept after its last use."""
        with self._lock:
            piece = self._piece(block, start)
            if piece is None:
                return None
            piece.uses -= 1
            if not piece.uses:
                self._let_go(block, start)
            return piece.data

    def put(self, block: BlockId, data: bytes) -> None:
        """Keep the pieces of a block."""
        pieces = {start: _Piece(data[start : start + length], 1) for start, length in self._pieces_of(block)}
        with self._lock:
            for start, piece in pieces.items():
                there = self._piece(block, start)
                # One use more than before; more where two epochs have claimed it by now.
                piece.uses = max(1 + (0 if there is None else there.uses), self._claims.get((block, start), 0))
            self._forget(block)
            self._blocks[block] = kept = _Pieces(self._now, pieces)
            self.memory_bytes += kept.num_bytes
            while self.memory_bytes > self.budget_bytes and self._blocks:
                self._forget(next(iter(self._blocks)))

    def drop(self, block: BlockId) -> None:
        """Forget a block."""
        with self._lock:
            self._forget(block)

    def forget_claims(self) -> None:
        """What was claimed will not be taken."""
        with self._lock:
            self._claims.clear()

    def forget_unread(self, *, now: int, lifetime: int) -> None:
        """Forget what was put `lifetime` ago and never taken."""
        with self._lock:
            self._now = now
            while self._blocks and (block := next(iter(self._blocks))) and self._blocks[block].age < now - lifetime:
                self._forget(block)

    def _piece(self, block: BlockId, start: int) -> _Piece | None:
        kept = self._blocks.get(block)
        return None if kept is None else kept.pieces.get(start)

    def _let_go(self, block: BlockId, start: int) -> None:
        kept = self._blocks[block]
        self.memory_bytes -= len(kept.pieces.pop(start).data)
        if not kept.pieces:
            del self._blocks[block]

    def _forget(self, block: BlockId) -> None:
        kept = self._blocks.pop(block, None)
        self.memory_bytes -= 0 if kept is None else kept.num_bytes


class DiskBlocks:
    """Blocks as files in a folder that several processes may share: each reads those of all, and removes its own.

    Args:
        folder: The folder; made where needed.
        budget_bytes: Bytes to keep at most.
        origin: URL of the dataset, part of each block's name.

    Raises:
        ConfigError: The folder cannot be written.
    """

    claims = None

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
    def memory_bytes(self) -> int:
        """None: all lies on disk."""
        return 0

    @property
    def size_bytes(self) -> int:
        """Bytes that the cache believes to keep."""
        with self._lock:
            return sum(self._sizes.values())

    def claim(self, block: BlockId, start: int) -> bool:  # noqa: ARG002 - the seam's signature
        """Whether a block is at hand, be it that another process put it there."""
        name = self._name(block)
        return name in self._sizes or (self.folder / name).exists()

    def take(self, block: BlockId, start: int, length: int) -> bytes | None:
        """Bytes of a block, None where it is not at hand. They stay in the cache."""
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
        partial = self.folder / f".partial-biovfm-{secrets.token_hex(6)}"
        try:
            with partial.open("xb") as stream:  # its mode follows the umask: users of one group may share a cache
                stream.write(data)
            partial.replace(self.folder / name)
        except OSError as error:
            raise StoreError(
                f"cannot write to the cache {self.folder}: {error.strerror}", hint="free some space or lower its budget"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
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
