"""A store on local disk. Objects appear by hard link or rename, so a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from shards.errors import AlreadyExistsError, NotFoundError, ShortObjectError, StoreError
from shards.store.base import HIDDEN, ObjectInfo, is_hidden

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


class LocalStore:
    """A folder on local (or mounted) disk.

    Args:
        root: The folder; made when something is first written.
    """

    retries = 0

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()
        self.url = str(self.root)

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    def read(self, path: str) -> bytes:
        """The whole object."""
        with self.open_stream(path) as stream, _failures(self._file(path), "read"):
            return stream.read()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`."""
        return self.read_ranges(path, [(start, length)])[0]

    def read_ranges(self, path: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Several `(start, length)` ranges, in their order."""
        file = self._file(path)
        with self.open_stream(path) as stream, _failures(file, "read"):
            parts = [os.pread(stream.fileno(), length, start) for start, length in ranges]
        for part, (start, length) in zip(parts, ranges, strict=True):
            if len(part) != length:
                raise ShortObjectError(
                    f"{file} ends after {start + len(part)} bytes, wanted {length} at offset {start}",
                    hint="the object was cut; run `biovfm verify` on the dataset",
                )
        return parts

    def open_stream(self, path: str, start: int = 0) -> BinaryIO:
        """A readable stream from `start`."""
        file = self._file(path)
        with _failures(file, "read"):
            stream = io.BufferedReader(_Opened(file))
        stream.seek(start)
        return stream

    def stat(self, path: str) -> ObjectInfo:
        """Size of one object."""
        file = self._file(path)
        with _failures(file, "read"):
            info = file.stat()
        if not file.is_file():
            raise NotFoundError(f"no such object: {file}")
        return ObjectInfo(path=path, size=info.st_size, modified=info.st_mtime)

    def list(self, prefix: str = "", *, hidden: bool = False) -> Iterator[ObjectInfo]:
        """All objects whose path starts with `prefix`, in the order of their paths."""
        found = []
        for parent, _, names in os.walk(self._file(prefix.rpartition("/")[0]), onerror=_raise_unless_gone):
            base = Path(parent).relative_to(self.root)
            found += [(base / name).as_posix() for name in names]
        for path in sorted(found):
            if path.startswith(prefix) and (hidden or not is_hidden(path)):
                with contextlib.suppress(NotFoundError):
                    yield self.stat(path)

    def put_if_absent(self, path: str, data: bytes | Path) -> ObjectInfo:
        """Create an object from bytes or a local file; it appears whole or not at all."""
        target = self._file(path)
        if target.exists():
            raise AlreadyExistsError(f"{target} is there already")
        partial = target.parent / f"{HIDDEN}{os.getpid()}-{secrets.token_hex(6)}"
        with _failures(target, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as stream:
                    _fill(stream, data)
                size = partial.stat().st_size
                _give_name(partial, target)
            finally:
                partial.unlink(missing_ok=True)
            _sync_folder(target.parent)
        return ObjectInfo(path=path, size=size)

    def move_if_absent(self, source: str, target: str) -> ObjectInfo:
        """Give an object another name."""
        info = self.stat(source)
        old, new = self._file(source), self._file(target)
        with _failures(new, "write"):
            new.parent.mkdir(parents=True, exist_ok=True)
            _give_name(old, new)
            old.unlink(missing_ok=True)
            _sync_folder(new.parent)
        return ObjectInfo(path=target, size=info.size)

    def replace(self, path: str, data: bytes) -> None:
        """Put an object over whatever is there."""
        target = self._file(path)
        partial = target.parent / f"{HIDDEN}{os.getpid()}-{secrets.token_hex(6)}"
        with _failures(target, "write"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("xb") as stream:
                    _fill(stream, data)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            _sync_folder(target.parent)

    def delete(self, paths: Sequence[str]) -> None:
        """Delete objects, and the folders that this leaves empty."""
        for path in paths:
            file = self._file(path)
            with _failures(file, "delete"):
                file.unlink(missing_ok=True)
            for folder in file.parents:
                if folder == self.root or not _remove_if_empty(folder):
                    break

    def local_path(self, path: str) -> Path | None:
        """The file itself."""
        return self._file(path)

    def _file(self, path: str) -> Path:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            raise StoreError(f"the path {path!r} leaves the folder {self.root}", hint="give a path inside it")
        return self.root / path


class _Opened(io.FileIO):
    """An open file: what the system says while it is read is an error of the store that names the file."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, "rb")
        self._file = file

    def readinto(self, buffer: Any, /) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise _unreadable(self._file, error) from error

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            raise _unreadable(self._file, error) from error


def _unreadable(file: Path, error: OSError) -> StoreError:
    return StoreError(f"cannot read {file}: {error.strerror}", hint="check the disk and the file's rights")


def _raise_unless_gone(error: OSError) -> None:
    """A folder that may not be listed must not look like an empty one."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise StoreError(
            f"cannot list {error.filename}: {error.strerror}", hint="check the folder's rights and its disk"
        ) from error


def _fill(stream: BinaryIO, data: bytes | Path) -> None:
    if isinstance(data, Path):
        with data.open("rb") as source:
            shutil.copyfileobj(source, stream, 1 << 20)
    else:
        stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())


def _give_name(source: Path, target: Path) -> None:
    """Let `target` be the file `source`, unless the name is taken; `source` may be left or gone afterwards."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # File systems without hard links: a rename, which two writers of one name can race for, but never half a file.
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        source.rename(target)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the file itself is on disk
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


@contextmanager
def _failures(file: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise AlreadyExistsError(f"{file} is there already") from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        if verb == "write":
            raise StoreError(f"cannot write {file}: {error.strerror}", hint="check the folder") from error
        raise NotFoundError(f"no such object: {file}") from error
    except OSError as error:
        raise StoreError(
            f"cannot {verb} {file}: {error.strerror}", hint="check free space and the folder's rights"
        ) from error
