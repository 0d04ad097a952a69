"""A store on local disk. Objects appear by hard link or rename, so a reader never sees half of one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from shards.errors import AlreadyExistsError, NotFoundError, StoreError
from shards.store.base import ObjectInfo

_PARTIAL = ".partial-"


class LocalStore:
    """A folder on local (or mounted) disk.

    Args:
        root: The folder; made when something is first written.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)

    def read(self, path: str) -> bytes:
        """The whole object."""
        with self.open_stream(path) as stream:
            return stream.read()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        return self.read_ranges(path, [(start, length)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several `(start, length)` ranges, in their order."""
        with self.open_stream(path) as stream:
            parts = [os.pread(stream.fileno(), length, start) for start, length in ranges]
        for part, (start, length) in zip(parts, ranges, strict=True):
            if len(part) != length:
                raise StoreError(
                    f"{self.root / path} ends after {start + len(part)} bytes, wanted {length} at offset {start}",
                    hint="the object was cut; run `biovfm verify` on the dataset",
                )
        return parts

    def open_stream(self, path: str, start: int = 0) -> BinaryIO:
        """A readable stream from `start`."""
        try:
            stream = (self.root / path).open("rb")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFoundError(f"no such object: {self.root / path}") from error
        except OSError as error:
            raise StoreError(f"cannot read {self.root / path}: {error.strerror}") from error
        stream.seek(start)
        return stream

    def stat(self, path: str) -> ObjectInfo:
        """Size of one object."""
        file = self.root / path
        if not file.is_file():
            raise NotFoundError(f"no such object: {file}")
        return ObjectInfo(path=path, size=file.stat().st_size)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose path starts with `prefix`, in the order of their paths."""
        folder = self.root / prefix.rpartition("/")[0]
        found = []
        for parent, _, names in os.walk(folder):
            base = Path(parent).relative_to(self.root)
            found += [(base / name).as_posix() for name in names if not name.startswith(_PARTIAL)]
        for path in sorted(found):
            if path.startswith(prefix):
                yield ObjectInfo(path=path, size=(self.root / path).stat().st_size)

    def put_if_absent(self, path: str, data: bytes | Path) -> ObjectInfo:
        """Create an object from bytes or a local file; it appears whole or not at all."""
        target = self.root / path
        if target.exists():
            raise AlreadyExistsError(f"{target} is there already")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=_PARTIAL, dir=target.parent)
        except OSError as error:
            raise StoreError(
                f"cannot write {target}: {error.strerror}", hint="check the folder and its rights"
            ) from error
        partial = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, stream, 1 << 20)
                else:
                    stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                os.fchmod(stream.fileno(), 0o644)
            size = partial.stat().st_size
            os.link(partial, target)
        except FileExistsError as error:
            raise AlreadyExistsError(f"{target} is there already") from error
        except OSError as error:
            raise StoreError(
                f"cannot write {target}: {error.strerror}", hint="check free space and rights"
            ) from error
        finally:
            partial.unlink(missing_ok=True)
        return ObjectInfo(path=path, size=size)

    def move_if_absent(self, source: str, target: str) -> ObjectInfo:
        """Give an object another name."""
        info = self.stat(source)
        new = self.root / target
        new.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(self.root / source, new)
        except FileExistsError as error:
            raise AlreadyExistsError(f"{new} is there already") from error
        (self.root / source).unlink()
        return ObjectInfo(path=target, size=info.size)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects, and the folders that this leaves empty."""
        for path in paths:
            file = self.root / path
            file.unlink(missing_ok=True)
            for folder in file.parents:
                if folder == self.root or not folder.is_dir() or any(folder.iterdir()):
                    break
                folder.rmdir()

    def local_path(self, path: str) -> Path | None:
        """The file itself."""
        return self.root / path
