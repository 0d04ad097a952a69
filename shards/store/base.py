"""What a store can do. Paths are relative to the store's URL, with `/` between parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

HIDDEN = ".partial-"
"""Objects whose last name begins so are uploads under way; `list` shows them only when asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One stored object.

    Attributes:
        path: Path relative to the store's URL.
        size: Bytes.
        etag: The store's entity tag; empty where it has none.
        modified: Last change in seconds since 1970 by the store's clock; 0 where unknown.
    """

    path: str
    size: int
    etag: str = ""
    modified: float = 0.0


class Store(Protocol):
    """A folder of objects, which hardly ever change.

    Every method raises `NotFoundError` where the object is missing and `StoreError` (with URL, path and offset in
    its message) where the storage fails after its retries.
    """

    url: str

    @property
    def retries(self) -> int:
        """Attempts that followed a failed one, in this process."""
        ...

    def read(self, path: str) -> bytes:
        """The whole object."""
        ...

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`; a shorter object is a `StoreError`."""
        ...

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several `(start, length)` ranges of one object, in their order."""
        ...

    def open_stream(self, path: str, start: int = 0) -> BinaryIO:
        """A readable stream from `start` to the end."""
        ...

    def stat(self, path: str) -> ObjectInfo:
        """Size of one object."""
        ...

    def list(self, prefix: str = "", *, hidden: bool = False) -> Iterator[ObjectInfo]:
        """All objects whose path starts with `prefix`, in the order of their paths.

        Args:
            prefix: What their paths start with.
            hidden: Also uploads that are under way or died.
        """
        ...

    def put_if_absent(self, path: str, data: bytes | Path) -> ObjectInfo:
        """Create an object from bytes or a local file; it appears whole or not at all.

        Raises:
            AlreadyExistsError: The name is taken.
        """
        ...

    def move_if_absent(self, source: str, target: str) -> ObjectInfo:
        """Give an object another name.

        Raises:
            AlreadyExistsError: The new name is taken.
        """
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Put an object over whatever is there; who reads meanwhile gets the old one or the new one."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects; missing ones are no error."""
        ...

    def local_path(self, path: str) -> Path | None:
        """The file to memory-map, or None where the store is not a local disk."""
        ...


def is_hidden(path: str) -> bool:
    """Whether the path is that of an upload under way."""
    return path.rpartition("/")[2].startswith(HIDDEN)


def join_url(url: str, *parts: str) -> str:
    """`url` and path parts joined by single slashes."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts)])
