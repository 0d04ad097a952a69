"""Where the raw files of a source lie: a folder, one file, or any fsspec URL; what is there, and how it is opened.

A local folder is listed in a fixed order: its regular files, with what cannot be read said and not left out. Links to
files and folders are followed, wherever they lead, since large disks are often linked into a raw folder. A folder is
gone through once: a link to one that is reached anyway, or was followed before, is told and left alone.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, cast

from ingest.raw.faults import fault_of
from ingest.raw.names import printable
from ingest.raw.object_storage import ObjectFolder
from ingest.raw.streams import Joined
from ingest.raw.web_address import query_of
from shards.errors import SourceError
from shards.store.notice import waiting
from shards.store.options import S3_SCHEMES, fsspec_options, redact

__all__ = ["RawRoot", "Stored", "Walked", "open_regular", "walk"]


class Walked(NamedTuple):
    """A file that was found, or something else with a word of what it is.

    Attributes:
        path: Below the folder, with `/`.
        size: Bytes; 0 where that is not known.
        ignored: Why it is left alone, as a kind that is counted; empty for a file.
        rejected: Why it can never be read; empty for a file.
        unavailable: The error that says it cannot be read now; empty for a file.
        stamp: Time of its last change or entity tag; empty where neither is known.
    """

    path: str
    size: int = 0
    ignored: str = ""
    rejected: str = ""
    unavailable: str = ""
    stamp: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file below the raw URL, or the parts of a split one as if they were whole.

    Attributes:
        path: Its path; of a split file that of the part by which it is known.
        size: Bytes of all parts; 0 where that is not known.
        open: Gives a seekable stream.
        key: What tells a local file from all others and from itself before a change; else empty.
    """

    path: str
    size: int
    open: Callable[[], BinaryIO]
    key: tuple[object, ...] = ()


class RawRoot:
    """The raw URL of a source.

    Args:
        url: Folder or file, as a path or any fsspec URL.
        block_bytes: How much of a remote file is fetched at a time.
        stands_for_folder: Whether a single file of this name stands for the folder that it lies in.

    Raises:
        SourceError: Nothing is there, or its driver is missing.
    """

    def __init__(
        self, url: str, *, block_bytes: int = 4 << 20, stands_for_folder: Callable[[str], object] = lambda _: False
    ) -> None:
        self.url = url
        self._block_bytes = block_bytes
        self._objects: ObjectFolder | None = None
        self._queries: dict[str, str] = {}
        scheme, separator, rest = url.partition("://")
        self._local = not separator or scheme == "file"
        if self._local:
            self._base = str(Path(rest if separator else url).expanduser().absolute())
            if not Path(self._base).exists():
                raise SourceError(
                    f"no raw data at {url}", hint="check the path; `biovfm sources show ID` says what to get"
                )
            if Path(self._base).is_file():
                self._base, self._only = os.path.split(self._base)
            else:
                self._only = ""
        else:
            self._open_remote(url)
        if self._only and stands_for_folder(self._only):
            self._only = ""

    def _open_remote(self, url: str) -> None:
        import fsspec

        try:
            with waiting(redact(url), limit_seconds=0):
                self._fs, self._base = fsspec.core.url_to_fs(url, **fsspec_options(url))
                info = self._fs.info(self._base)
        except Exception as error:  # each file system has errors of its own
            raise SourceError(
                f"cannot read {redact(url)}: {type(error).__name__}", hint="check URL, network and credentials"
            ) from error
        self._only = ""
        if info["type"] == "file":
            query = query_of(self._base)
            self._base, _, self._only = self._base.removesuffix(query).rpartition("/")
            self._queries[self._only] = query
        if url.partition("://")[0] in S3_SCHEMES and "::" not in url:
            self._objects = ObjectFolder(f"s3://{self._base}", block_bytes=self._block_bytes)

    @property
    def single(self) -> str:
        """Name of the file where the raw URL is one; else empty."""
        return self._only

    def walk(self) -> Iterator[Walked]:
        """Every file, sorted by its path below the URL.

        Raises:
            UnavailableError: A remote folder cannot be listed now.
        """
        if self._only:
            yield Walked(self._only, self.size(self._only), stamp=self.stamp(self._only))
        elif self._local:
            yield from walk(Path(self._base))
        elif self._objects is not None:
            yield from (Walked(path, size) for path, size in self._objects.list())
        else:
            base = self._base.rstrip("/") + "/"
            try:
                found = self._fs.find(self._base, detail=True)
            except Exception as error:
                raise fault_of(error) or error from error
            files = sorted(
                (name.removeprefix(base), int(info["size"] or 0), _stamp(info)) for name, info in found.items()
            )
            yield from (Walked(path, size, stamp=stamp) for path, size, stamp in files)

    def _address(self, path: str) -> str:
        """A remote file as its driver names it; a web address that is the raw URL, with its query."""
        return f"{self._base}/{path}{self._queries.get(path, '')}"

    def size(self, path: str) -> int:
        """Bytes of one file.

        Raises:
            OSError: There is none, or it is no regular file.
        """
        if self._local:
            found = (Path(self._base) / path).stat()
            _require_regular(found.st_mode)
            return found.st_size
        return int(self._fs.size(self._address(path)) or 0)

    def stamp(self, path: str) -> str:
        """Time of the last change of a file or its entity tag; empty where neither is known."""
        try:
            if self._local:
                return f"{(Path(self._base) / path).stat().st_mtime_ns:x}"
            return _stamp(self._fs.info(self._address(path)))
        except OSError:  # who opens it is told
            return ""

    def stored(self, path: str, parts: Sequence[tuple[str, int]] = (), *, size: int | None = None) -> Stored:
        """A file, or the parts of a split one as if they were whole.

        Args:
            path: The file.
            parts: Paths and sizes of the parts in order; empty for a whole file.
            size: Bytes, where a listing has told them.
        """
        if not parts:
            size = self._size(path) if size is None else size
            return Stored(path=path, size=size, open=lambda: self.open(path), key=self._key(path))
        return Stored(path=path, size=sum(length for _, length in parts), open=lambda: self._open_parts(parts))

    def _open_parts(self, parts: Sequence[tuple[str, int]]) -> BinaryIO:
        return cast("BinaryIO", io.BufferedReader(Joined(self.open, parts), 1 << 18))

    def _size(self, path: str) -> int:
        try:
            return self.size(path)
        except OSError:
            return 0

    def _key(self, path: str) -> tuple[object, ...]:
        if not self._local:
            return ()
        try:
            found = (Path(self._base) / path).stat()
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def open(self, path: str) -> BinaryIO:
        """A seekable stream.

        Raises:
            OSError: The file cannot be opened, or is no regular file.
        """
        if self._local:
            return open_regular(Path(self._base) / path)
        if self._objects is not None:
            return self._objects.open(path)
        stream: BinaryIO = self._fs.open(self._address(path), "rb", block_size=self._block_bytes)
        return stream


def _stamp(info: Mapping[str, Any]) -> str:
    """What a file system says of a file's state, under the names that the drivers use."""
    found = (info.get(name) for name in ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime"))
    return next((str(value) for value in found if value), "")


def open_regular(path: Path) -> BinaryIO:
    """A stream of a regular file; a FIFO or a device, also one that a link leads to, is never waited for or read.

    Raises:
        OSError: The file cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file")


_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def walk(folder: Path) -> Iterator[Walked]:
    """Everything below a folder, sorted by path, with the names of one branch in memory.

    A folder is sorted as its name and a slash, which is how the paths in it begin.
    """
    return _Walk(real_root=os.path.realpath(folder)).files(folder)


@dataclass(slots=True, kw_only=True)
class _Folder:
    """A folder under way: its names that are left, the next one last.

    Attributes:
        path: Where it is.
        inner: Its path below the walk's folder, with a slash behind it; empty for that folder itself.
        real: Its path without links.
        names: What is left in it; folders with a slash behind them.
    """

    path: Path
    inner: str
    real: str
    names: list[str]


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What a walk remembers: the folders that links led to."""

    real_root: str
    followed: set[str] = field(default_factory=set)

    def files(self, top: Path) -> Iterator[Walked]:
        """Everything below a folder; folders may lie deeper in each other than calls can."""
        branch: list[_Folder] = []
        yield from self._enter(branch, top, "", self.real_root)
        while branch:
            folder = branch[-1]
            if not folder.names:
                branch.pop()
                continue
            name = folder.names.pop()
            path, inner = folder.path / name, folder.inner + name
            if not name.endswith("/"):
                yield Walked(inner, ignored=_TWIN) if _is_written_as_another(top, inner) else _file(path, inner)
                continue
            is_link = path.is_symlink()
            real = os.path.realpath(path) if is_link else f"{folder.real.rstrip('/')}/{name[:-1]}"
            if self._is_listed_elsewhere(real, is_link=is_link):
                yield Walked(inner[:-1], ignored="link to a folder that is listed anyway")
                continue
            if is_link:
                self.followed.add(real)
            yield from self._enter(branch, path, inner, real)

    def _enter(self, branch: list[_Folder], path: Path, inner: str, real: str) -> Iterator[Walked]:
        """Begin a folder; where it may not be entered, that is told."""
        try:
            with os.scandir(path) as entries:
                names = [f"{entry.name}/" if _is_folder(entry) else entry.name for entry in entries]
        except OSError as error:
            yield Walked(inner or ".", unavailable=_code(error))
            return
        names.sort(reverse=True)
        branch.append(_Folder(path=path, inner=inner, real=real, names=names))

    def _is_listed_elsewhere(self, real: str, *, is_link: bool) -> bool:
        """Whether a folder is reached by its own path, or was by another link."""
        if is_link:
            return any(_inside(real, known) for known in (self.real_root, *self.followed))
        return real == self.real_root or real in self.followed


_TWIN: Final = "name that is no text and is written like that of another file"


def _is_written_as_another(top: Path, inner: str) -> bool:
    """Whether a path holds bytes that are no text, and the way in which it is written is the path of another file."""
    written = printable(inner)
    return written != inner and os.path.lexists(top / written)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _file(path: Path, inner: str) -> Walked:
    try:
        found = path.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return Walked(inner, rejected="a link that leads nowhere" if path.is_symlink() else "gone while listing")
        return Walked(inner, unavailable=_code(error))
    if stat.S_ISREG(found.st_mode):
        return Walked(inner, found.st_size, stamp=f"{found.st_mtime_ns:x}")
    return Walked(inner, rejected=f"no regular file but {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}")


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "OSError")
