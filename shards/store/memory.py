"""A store in memory: the twin of the real ones, for tests and for trying things out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from shards.errors import AlreadyExistsError, NotFoundError, ShortObjectError
from shards.store.base import ObjectInfo, is_hidden


class MemoryStore:
    """Objects in a dictionary."""

    retries = 0

    def __init__(self, url: str = "memory://") -> None:
        self.url = url
        self.objects: dict[str, bytes] = {}

    def read(self, path: str) -> bytes:
        """The whole object."""
        if path not in self.objects:
            raise NotFoundError(f"no such object: {self.url}{path}")
        return self.objects[path]

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        data = self.read(path)[start : start + length]
        if len(data) != length:
            raise ShortObjectError(
                f"{self.url}{path} ends after {start + len(data)} bytes, wanted {length} at offset {start}"
            )
        return data

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several `(start, length)` ranges, in their order."""
        return [self.read_range(path, start, length) for start, length in ranges]

    def open_stream(self, path: str, start: int = 0) -> BinaryIO:
        """A readable stream from `start`."""
        return io.BytesIO(self.read(path)[start:])

    def stat(self, path: str) -> ObjectInfo:
        """Size of one object."""
        return ObjectInfo(path=path, size=len(self.read(path)))

    def list(self, prefix: str = "", *, hidden: bool = False) -> Iterator[ObjectInfo]:
        """All objects whose path starts with `prefix`, in the order of their paths."""
        for path in sorted(self.objects):
            if path.startswith(prefix) and (hidden or not is_hidden(path)):
                yield ObjectInfo(path=path, size=len(self.objects[path]))

    def put_if_absent(self, path: str, data: bytes | Path) -> ObjectInfo:
        """Create an object from bytes or a local file."""
        if path in self.objects:
            raise AlreadyExistsError(f"{self.url}{path} is there already")
        self.objects[path] = data.read_bytes() if isinstance(data, Path) else bytes(data)
        return self.stat(path)

    def move_if_absent(self, source: str, target: str) -> ObjectInfo:
        """Give an object another name."""
        info = self.put_if_absent(target, self.read(source))
        del self.objects[source]
        return info

    def replace(self, path: str, data: bytes) -> None:
        """Put an object over whatever is there."""
        self.objects[path] = bytes(data)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects."""
        for path in paths:
            self.objects.pop(path, None)

    def local_path(self, path: str) -> Path | None:  # noqa: ARG002 - the seam's signature
        """None: there is no file."""
        return None
